import json

import numpy as np
import pytest

from modelyard.components.artifacts import Tensor
from modelyard.components.serve import tensors
from modelyard.components.serve.replies import HttpError, encode_predictions
from tests.versions import classifier_signature

PIXELS = classifier_signature((2, 3), "uint8", ("a", "b")).input
FLOATS = classifier_signature((2, 3), "float32", ("a", "b")).input


def batch(text: str, signature: Tensor = PIXELS, key: str = "instances") -> np.ndarray:
    data = text.encode()
    return tensors.parse_batch(tensors.parse(data)[key], key, data, signature, max_batch=4)


def parse_refused(text: str, signature: Tensor = PIXELS) -> tuple[int, str]:
    with pytest.raises(HttpError) as refused:
        batch(text, signature)
    return refused.value.reply.status, str(refused.value)


@pytest.mark.parametrize("signature", [PIXELS, FLOATS])
@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": "), (" ,\n", "\t: ")])
def test_a_batch_has_its_shape_dtype_and_values(signature, separators):
    values = np.arange(18).reshape(3, 2, 3)
    parsed = batch(json.dumps({"instances": values.tolist()}, separators=separators), signature)
    assert parsed.dtype == signature.dtype
    np.testing.assert_array_equal(parsed, values)


def test_the_array_may_follow_other_keys():
    parsed = batch('{"signature_name": "[[", "x": [[1]], "instances": [[[1, 2, 3], [4, 5, 6]]]}')
    np.testing.assert_array_equal(parsed, [[[1, 2, 3], [4, 5, 6]]])


def test_whole_numbers_written_as_floats_are_pixels():
    np.testing.assert_array_equal(
        batch('{"instances": [[[1.0, 2e0, 255.0], [0, 0.0, 12.0]]]}'), [[[1, 2, 255], [0, 0, 12]]]
    )


def test_floats_keep_their_values():
    values = [[[-1.5, 2e-7, 3.25e8], [0, -0.0, 1]]]
    np.testing.assert_array_equal(
        batch(json.dumps({"instances": values}), FLOATS), np.asarray(values, np.float32)
    )


@pytest.mark.parametrize("value", ["256", "-1", "12.5", "1e9", "18446744073709551615"])
def test_an_invalid_pixel_is_refused(value):
    status, message = parse_refused(f'{{"instances": [[[1, 2, 3], [4, {value}, 6]]]}}')
    assert status == 400
    assert f"Value 4 of the input is {float(value):g}, but" in message
    assert "integers 0 to 255" in message


def test_a_float_beyond_float32_is_refused():
    status, message = parse_refused('{"instances": [[[1, 2, 3], [4, 1e39, 6]]]}', FLOATS)
    assert (status, message.startswith("Value 4")) == (400, True)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        ("[[1, 2, 3], [4, 5, 6]]", "shape 2x3, but 2x2x3 is expected"),
        ("[[[1, 2], [3, 4], [5, 6]]]", "shape 1x3x2, but 1x2x3 is expected"),
        ("[[[1, 2, 3], [4, 5, 6, 7]]]", "rows of different lengths"),
        ("[[[1, 2, 3, 4], [5, 6]]]", "rows of different lengths"),
        ("[[[1, 2], [3]]]", "rows of different lengths"),
        ("[[[1, 2], [3, 4, 5], [6]]]", "rows of different lengths"),
        ("[[[1, 2, 3], [4, [5], 6]]]", "rows of different lengths or depths"),
        ("[[[1, 2, 3], [4, 5, 6]], [[1, 2, 3], [4, 5, 6], []]]", "rows of different lengths"),
        ("[[[[1], [2], [3]], [[4], [5], [6]]]]", "shape 1x2x3x1"),
        ("[]", "no examples"),
        ("[[]]", "shape 1x0"),
        ("7", "a JSON number"),
        ("null", "a JSON null"),
        ('{"a": 1}', "a JSON object"),
        ('[[["1", 2, 3], [4, 5, 6]]]', "not a number"),
        ("[[[null, 2, 3], [4, 5, 6]]]", "not a number"),
        ("[[[true, 2, 3], [4, 5, 6]]]", "not a number"),
    ],
)
@pytest.mark.parametrize("signature", [PIXELS, FLOATS])
def test_a_wrong_shape_or_type_is_refused(array, expected, signature):
    status, message = parse_refused(f'{{"instances": {array}}}', signature)
    assert status == 400
    assert expected in message


def test_json_with_more_values_than_can_be_parsed_at_once_is_refused_with_413():
    values = b"0," * tensors.MAX_JSON_VALUES
    with pytest.raises(HttpError) as refused:
        tensors.parse(b'{"instances":[' + values + b"0]}")
    assert refused.value.reply.status == 413
    assert tensors.parse(b'{"text":"' + b"." * len(values) + b'"}')["text"]


def test_deep_nesting_is_a_wrong_shape():
    status, message = parse_refused('{"instances": ' + "[" * 1000 + "5" + "]" * 1000 + "}")
    assert (status, "1x2x3 is expected" in message) == (400, True)


def test_equal_names_are_described_once():
    assert tensors.describe_names("input", "input") == "'input'"


def test_too_many_examples_are_refused_with_413():
    status, message = parse_refused(json.dumps({"instances": np.zeros((5, 2, 3), int).tolist()}))
    assert status == 413
    assert "5 examples" in message
    assert "maximum is 4" in message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("{", "at line 1, column 2"),
        ('{"instances": [NaN]}', "NaN is not a number"),
        ('{"instances": [-Infinity]}', "-Infinity is not"),
        ('{"a": 1} x', "at line 1, column 10"),
        ('{"a": 1,\n "b"}', "at line 2, column 5"),
        ("\x00", "at line 1, column 1"),
        ('{"instances": ' + "[" * 5000 + "]" * 5000 + "}", "too deep"),
        ('{"instances": [%s]}' % ("9" * 5000), "Big integer"),
        ('{"instances": [%s 1 2]}' % ("1, " * 400_000), "missing or superfluous commas"),  # not parsed again
    ],
)
def test_invalid_json_is_refused_with_its_position(text, message):
    with pytest.raises(HttpError, match=f"not valid JSON: .*{message}") as refused:
        tensors.parse(text.encode())
    assert "_ERROR" not in str(refused.value)
    assert len(str(refused.value)) < 250


@pytest.mark.parametrize("text", ["[1]", "3", '"a"', "null"])
def test_json_that_is_not_an_object_is_refused(text):
    with pytest.raises(HttpError, match="an object is expected"):
        tensors.parse(text.encode())


def test_bytes_become_a_batch():
    values = np.arange(12, dtype="<f4").reshape(2, 2, 3)
    np.testing.assert_array_equal(tensors.parse_binary(values.tobytes(), (2, 2, 3), FLOATS), values)


def test_bytes_of_a_wrong_length_or_with_nan_are_refused():
    with pytest.raises(HttpError, match="5 bytes, but 6 are expected for shape 1x2x3 of uint8"):
        tensors.parse_binary(b"12345", (1, 2, 3), PIXELS)
    with pytest.raises(HttpError, match="Value 3 of the input is NaN"):
        tensors.parse_binary(np.array([0, 0, 0, np.nan, 0, 0], "<f4").tobytes(), (1, 2, 3), FLOATS)


def test_predictions_are_encoded_without_loss():
    predictions = np.random.default_rng(0).random((50, 7)).astype(np.float32) ** 9
    decoded = json.loads(encode_predictions(predictions))
    np.testing.assert_array_equal(np.asarray(decoded, np.float32), predictions)


def test_parsing_does_not_change_an_earlier_document():
    first = tensors.parse(b'{"instances": [1]}')
    second = tensors.parse(b'{"instances": [2]}')
    assert (first["instances"][0], second["instances"][0]) == (1, 2)
