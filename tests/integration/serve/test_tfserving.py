"""The API v1 of TF Serving: predictions, and a status 4xx with a reason for invalid requests."""

import base64
import gzip
import io
import json
import struct
import textwrap
import zlib
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import numpy as np
import pytest
from PIL import Image

from modelyard.components.errors import DataError
from modelyard.components.server import HttpServer
from modelyard.pipelines.serving.prediction import LocalModel, RemoteModel, predict
from tests import image_files
from tests.versions import classifier_signature

WHITE = np.full((4, 4, 3), 255)
BLACK = np.zeros((4, 4, 3), int)


def encode_image(level: int, size: tuple[int, int] = (9, 5), kind: str = "PNG") -> dict[str, str]:
    file = io.BytesIO()
    Image.new("RGB", size, (level,) * 3).save(file, kind)
    return {"b64": base64.b64encode(file.getvalue()).decode()}


def test_a_batch_of_instances_gets_a_prediction_for_each(image_server):
    response = image_server.predict([BLACK.tolist(), WHITE.tolist(), (BLACK + 51).tolist()])
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    np.testing.assert_allclose(response.json()["predictions"], [[1, 0], [0, 1], [0.8, 0.2]], atol=1e-6)


def test_columnar_inputs_get_outputs(image_server):
    url = f"{image_server.url}/v1/models/tiny:predict"
    for inputs in ([WHITE.tolist()], {"input": [WHITE.tolist()]}, {"pixels": [WHITE.tolist()]}):
        body = {"signature_name": "serving_default", "inputs": inputs}
        response = httpx.post(url, json=body)
        assert response.json() == {"outputs": [[0, 1]]}


def test_the_form_content_type_of_curl_is_accepted(image_server):
    kind = {"content-type": "application/x-www-form-urlencoded"}
    body = json.dumps({"instances": [WHITE.tolist()]})
    response = httpx.post(f"{image_server.url}/v1/models/tiny:predict", content=body, headers=kind)
    assert response.json() == {"predictions": [[0, 1]]}


def test_a_chunked_body_is_joined(image_server):
    text = json.dumps({"instances": [WHITE.tolist()]}).encode()
    chunks = (text[start : start + 7] for start in range(0, len(text), 7))
    response = httpx.post(f"{image_server.url}/v1/models/tiny:predict", content=chunks)
    assert response.json() == {"predictions": [[0, 1]]}


def test_images_are_decoded_and_resized(image_server):
    instances = [
        encode_image(255),
        {"input": encode_image(0, kind="JPEG")},
        {"pixels": encode_image(51)},
        WHITE.tolist(),
    ]
    response = image_server.predict(instances)
    assert response.status_code == 200, response.text
    np.testing.assert_allclose(
        response.json()["predictions"], [[0, 1], [1, 0], [0.8, 0.2], [0, 1]], atol=1e-6
    )


def test_the_model_and_its_version_have_a_state(image_server):
    for path in ("/v1/models/tiny", "/v1/models/tiny/versions/1"):
        (state,) = httpx.get(image_server.url + path).json()["model_version_status"]
        assert (state["version"], state["state"]) == ("1", "AVAILABLE")


def test_the_path_may_have_a_version(image_server):
    url = f"{image_server.url}/v1/models/tiny/versions/1:predict"
    assert httpx.post(url, json={"instances": [WHITE.tolist()]}).status_code == 200


@pytest.mark.parametrize(
    ("instances", "message"),
    [
        ([[[1, 2], [3, 4]]], "shape 1x2x2, but 1x4x4x3 is expected"),
        (WHITE.tolist(), "shape 4x4x3, but 4x4x4x3 is expected"),
        ([(WHITE + 1).tolist()], "Value 0 of the input is 256"),
        ([(WHITE / 2).tolist()], "is 127.5, but this model expects uint8"),
        ([], "no examples"),
        ("text", "a JSON string"),
        (["text"], "neither a nested list of numbers"),
        ([{"b64": "***"}], "not base64"),
        ([{"b64": base64.b64encode(b"not an image").decode()}], "Example 0"),
        ([{"b64": 7}], "is not a string"),
        ([{"wrong": [1]}], "key 'wrong', but tiny has one input, 'pixels'"),
        ([{}], "no keys, but tiny has one input, 'pixels'"),
        ([{"input": {}}], "Example 0 is neither"),
        ([{"input": {"b65": "x"}}], "Example 0 is neither"),
        ([encode_image(1), None], "Example 1 is neither"),
        ([encode_image(1), [[1]]], "shape 1x1, but 4x4x3 is expected"),
    ],
)
def test_invalid_instances_get_400(image_server, instances, message):
    response = image_server.predict(instances)
    assert response.status_code == 400
    assert message in response.json()["error"]
    assert image_server.predict([WHITE.tolist()]).status_code == 200


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "it is empty"),
        (b"not json", "starts with 'not json'"),
        (b'{"instances":\n [1, 2}', "at line 2, column 7"),
        (b'{"instances": [[[[NaN]]]]}', "NaN is not a number"),
        (b"{}", "no keys"),
        (b"[1, 2]", "an object is expected"),
        (b'{"instances": [1], "inputs": [1]}', "either"),
        (b'{"instance": [1]}', "'instance'"),
        (b'{"inputs": {"a": [1], "b": [2]}}', "'a, b', but tiny has one input"),
        (b'{"\xff": 1}', "byte 2 is not UTF-8"),
    ],
)
def test_an_invalid_body_gets_400(image_server, body, message):
    response = httpx.post(f"{image_server.url}/v1/models/tiny:predict", content=body)
    assert response.status_code == 400
    assert message in response.json()["error"]


def test_too_many_examples_get_413(image_server):
    response = image_server.predict([WHITE.tolist()] * 9)
    assert response.status_code == 413
    assert "9 examples, and the maximum is 8" in response.json()["error"]


@pytest.mark.parametrize(
    ("method", "path", "status", "message"),
    [
        ("POST", "/v1/models/other:predict", 404, "no model 'other'; this server has the model 'tiny'"),
        (
            "POST",
            "/v1/models/tiny/versions/9:predict",
            404,
            "Version 9 of tiny is not served; the server has version 1",
        ),
        ("GET", "/v1/models/tiny/versions/x", 404, "Version x"),
        ("GET", "/v1/models/other", 404, "no model 'other'"),
        ("GET", "/v1/models/tiny:predict", 405, "use POST"),
        ("POST", "/v1/models/tiny", 405, "use GET"),
        ("GET", "/unknown", 404, "/unknown does not exist"),
        ("POST", "/v1/models/tiny:classify", 404, "/v1/models/NAME:predict"),
        ("POST", "/v1/models/tiny:regress", 404, "/v1/models/NAME:predict"),
        ("POST", "/v1/models/tiny/labels/stable:predict", 404, "/v1/models/NAME:predict"),
        ("POST", "/v2/repository/index", 404, "/v2 lists the supported extensions"),
    ],
)
def test_an_unknown_model_version_path_or_method_is_an_error(image_server, method, path, status, message):
    content = b'{"instances": []}' if method == "POST" else None
    response = httpx.request(method, image_server.url + path, content=content)
    assert response.status_code == status
    assert message in response.json()["error"]


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"content-type": "image/png"}, "'image/png', but application/json is expected"),
        ({"content-type": "multipart/form-data; boundary=x"}, "application/json is expected"),
        ({"content-encoding": "br"}, "'br'; send the body uncompressed"),
    ],
)
def test_other_content_types_get_415(image_server, headers, message):
    response = httpx.post(f"{image_server.url}/v1/models/tiny:predict", content=b"{}", headers=headers)
    assert response.status_code == 415
    assert message in response.json()["error"]


def test_a_model_of_numbers_refuses_images(number_server):
    values = np.full((2, 3, 2), 0.25)
    np.testing.assert_allclose(
        number_server.predict(values.tolist()).json()["predictions"], [[0.75, 0.25]] * 2
    )
    response = number_server.predict([encode_image(1)])
    assert response.status_code == 400
    assert "not trained on images. Send a nested list of shape 3x2" in response.json()["error"]


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e39", "1e999"])
def test_numbers_that_are_not_finite_get_400(number_server, value):
    body = f'{{"instances": [[[1, 2], [3, {value}], [5, 6]]]}}'
    response = httpx.post(f"{number_server.url}/v1/models/tiny:predict", content=body)
    assert response.status_code == 400


def test_golden_requests_are_counted_separately(number_server):
    def count(traffic: str) -> float:
        return number_server.metric("modelyard_predictions_total", traffic=traffic)

    clients, golden = count("client"), count("golden")
    number_server.predict(np.zeros((2, 3, 2)).tolist(), headers={"x-modelyard-golden": "1"})
    number_server.predict(np.zeros((1, 3, 2)).tolist())
    assert (count("client") - clients, count("golden") - golden) == (1, 2)


def test_the_page_has_the_models_name_and_no_external_resources(image_server):
    response = httpx.get(image_server.url, headers={"accept": "text/html,*/*;q=0.8"})
    assert response.headers["content-type"].startswith("text/html")
    assert "<h1>tiny</h1>" in response.text
    assert "{{" not in response.text
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert "default-src 'none'" in response.headers["content-security-policy"]


def test_base64_may_have_line_breaks_or_no_padding(image_server):
    texts = [encode_image(255, size=(40, height))["b64"] for height in range(1, 20)]
    for text in (texts[0], next(text for text in texts if text.endswith("="))):
        for encoded in (textwrap.fill(text, 76), text.rstrip("=")):
            assert image_server.predict([{"b64": encoded}]).json() == {"predictions": [[0, 1]]}


@pytest.mark.parametrize(("width", "height"), [(1, 49_999_999), (49_999_999, 1), (5000, 5000), (17_000, 10)])
def test_an_image_with_too_many_pixels_gets_400_before_it_is_decoded(image_server, width, height):
    response = image_server.predict(
        [{"b64": base64.b64encode(image_files.png(width, height, rows=1000)).decode()}]
    )
    assert response.status_code == 400
    assert f"{height} x {width}" in response.json()["error"]


def test_predict_and_the_server_refuse_an_image_with_the_same_message(image_server, tiny_model, tmp_path):
    file = tmp_path / "large.png"
    file.write_bytes(image_files.png(5000, 5000))
    expected = image_server.predict([{"b64": base64.b64encode(file.read_bytes()).decode()}]).json()["error"]
    tiny_model.publish()
    for model in (RemoteModel(HttpServer(image_server.url), "tiny"), LocalModel(tiny_model.models, "tiny")):
        with pytest.raises(DataError) as error:
            predict(model, [file])
        assert str(error.value) == f"{file}: {expected.removeprefix('Example 0: ')}"


def test_the_pixels_of_a_request_are_limited(image_server):
    instances = [{"b64": base64.b64encode(image_files.png(4000, 4000)).decode()}] * 5
    response = image_server.predict(instances)
    assert response.status_code == 413
    assert "64 megapixels" in response.json()["error"]


def test_a_jpeg_with_too_many_scans_is_refused(image_server):
    data = image_files.scans(64, 64, 200)
    response = image_server.predict([{"b64": base64.b64encode(data).decode()}])
    assert response.status_code == 400
    assert "scans" in response.json()["error"]


def test_health_is_answered_while_images_are_decoded(default_server):
    large = io.BytesIO()
    Image.effect_noise((3000, 3000), 90).save(large, "PNG")
    request = {"instances": [{"b64": base64.b64encode(large.getvalue()).decode()}]}
    url = default_server.url
    with ThreadPoolExecutor(4) as threads:
        post = partial(httpx.post, f"{url}/v1/models/tiny:predict", json=request, timeout=60)
        slow = [threads.submit(post) for _ in range(4)]
        responses = 0
        while not all(future.done() for future in slow):
            assert httpx.get(f"{url}/v2/health/live", timeout=60).status_code == 200
            responses += 1
    assert responses > 1, "health waited for the images"
    assert {future.result().status_code for future in slow} == {200}


def test_an_unknown_signature_is_refused(image_server):
    url = f"{image_server.url}/v1/models/tiny:predict"
    body = {"instances": [WHITE.tolist()]}
    assert httpx.post(url, json={"signature_name": "serving_default", **body}).status_code == 200
    assert httpx.post(url, json={"signature_name": "embed", **body}).status_code == 400


def test_a_gzip_body_is_decompressed_within_the_limit(image_server):
    url, headers = f"{image_server.url}/v1/models/tiny:predict", {"content-encoding": "gzip"}
    plain = json.dumps({"instances": [WHITE.tolist()]}).encode()
    body = gzip.compress(plain)
    deflate = {"content-encoding": "deflate"}
    assert httpx.post(url, content=zlib.compress(plain), headers=deflate).json() == {"predictions": [[0, 1]]}
    assert httpx.post(url, content=body, headers=headers).json() == {"predictions": [[0, 1]]}
    assert httpx.post(url, content=gzip.compress(b" " * 100_001), headers=headers).status_code == 413
    for damaged, message in (
        (body[:-9], "is truncated"),
        (b"{}", "gzip or deflate: incorrect header"),
        (body * 2, "after its end"),
    ):
        response = httpx.post(url, content=damaged, headers=headers)
        assert response.status_code == 400
        assert message in response.json()["error"]


def test_the_health_of_kserve_v1_is_served(image_server):
    assert httpx.get(image_server.url).json() == {"status": "alive"}
    assert httpx.get(f"{image_server.url}/v1/models/tiny").json()["ready"] is True
    assert httpx.get(f"{image_server.url}/v1/models").json() == {"models": ["tiny"]}


def test_a_missing_value_in_a_last_dimension_of_1_is_refused(tiny_model, start):
    signature = classifier_signature((2, 1), "float32", ("dark", "bright"))
    model_input = signature.input.model_copy(update={"name": "pixels"})
    tiny_model.publish(signature.model_copy(update={"inputs": (model_input,)}))
    with start(tiny_model) as server:
        assert server.predict([[[1], [2]]]).status_code == 200
        for invalid in ([[[], []]], [[[1], []]], [[[], [1]]]):
            assert server.predict(invalid).status_code == 400


def test_predictions_of_a_large_batch_are_in_order(default_server):
    levels = [level % 256 for level in range(101)]
    response = default_server.predict([np.full((4, 4, 3), level).tolist() for level in levels]).json()
    assert [round(probabilities[1] * 255) for probabilities in response["predictions"]] == levels


def test_a_damaged_image_is_not_logged(image_server):
    tiff = b"II*\0" + struct.pack("<IHHHII", 8, 1, 270, 2, 10_000, 100) + bytes(4)
    response = image_server.predict([{"b64": base64.b64encode(tiff).decode()}])
    assert response.status_code == 400
    assert "PIL" not in image_server.log.read_text()
