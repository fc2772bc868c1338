"""The Open Inference Protocol v2, with JSON and binary tensors."""

import json
from typing import Any

import httpx
import numpy as np
import pytest

BRIGHT = np.stack([np.zeros((4, 4, 3), np.uint8), np.full((4, 4, 3), 255, np.uint8)])


def tensor(values: np.ndarray = BRIGHT, **changes: Any) -> dict[str, Any]:
    kind = {"uint8": "UINT8", "float32": "FP32"}[str(values.dtype)]
    fields = {
        "name": "pixels",
        "shape": list(values.shape),
        "datatype": kind,
        "data": values.ravel().tolist(),
        **changes,
    }
    return {key: value for key, value in fields.items() if value is not None}


def infer(server: Any, body: Any, path: str = "/v2/models/tiny/infer") -> httpx.Response:
    return httpx.post(server.url + path, json=body)


def infer_binary(server: Any, document: Any, data: bytes, length: str | None = None) -> httpx.Response:
    head = json.dumps(document).encode()
    headers = {"inference-header-content-length": length or str(len(head))}
    return httpx.post(f"{server.url}/v2/models/tiny/infer", content=head + data, headers=headers)


def test_health_and_metadata_of_server_and_model(image_server):
    assert httpx.get(f"{image_server.url}/v2/health/live").json() == {"live": True}
    assert httpx.get(f"{image_server.url}/v2/health/ready").json() == {"ready": True}
    assert httpx.get(f"{image_server.url}/v2/models/tiny/ready").json() == {"name": "tiny", "ready": True}
    assert httpx.get(f"{image_server.url}/v2/models/other/ready").status_code == 404
    assert "binary_tensor_data" in httpx.get(f"{image_server.url}/v2").json()["extensions"]
    metadata = httpx.get(f"{image_server.url}/v2/models/tiny").json()
    assert metadata["versions"] == ["1"]
    assert metadata["inputs"] == [{"name": "pixels", "datatype": "UINT8", "shape": [-1, 4, 4, 3]}]
    assert metadata["outputs"] == [{"name": "probabilities", "datatype": "FP32", "shape": [-1, 2]}]
    assert metadata["parameters"]["signature"]["outputs"][0]["names"] == ["dark", "bright"]
    assert metadata["parameters"]["ranked"]


@pytest.mark.parametrize("nested", [False, True])
def test_a_json_tensor_gets_a_json_prediction(image_server, nested):
    input_tensor = tensor(data=BRIGHT.tolist()) if nested else tensor()
    body = infer(
        image_server, {"id": "q7", "inputs": [input_tensor]}, "/v2/models/tiny/versions/1/infer"
    ).json()
    assert (body["model_name"], body["model_version"], body["id"]) == ("tiny", "1", "q7")
    assert body["outputs"] == [
        {"name": "probabilities", "datatype": "FP32", "shape": [2, 2], "data": [1, 0, 0, 1]}
    ]


@pytest.mark.parametrize(
    "options",
    [
        {"outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}]},
        {"parameters": {"binary_data_output": True}},
    ],
)
def test_a_binary_tensor_gets_a_requested_binary_prediction(image_server, options):
    data = BRIGHT.tobytes()
    input_tensor = tensor(data=None, parameters={"binary_data_size": len(data)})
    response = infer_binary(image_server, {"inputs": [input_tensor], **options}, data)
    assert response.status_code == 200, response.text
    length = int(response.headers["inference-header-content-length"])
    (output,) = json.loads(response.content[:length])["outputs"]
    assert output["parameters"] == {"binary_data_size": 16}
    assert "data" not in output
    np.testing.assert_array_equal(np.frombuffer(response.content[length:], "<f4"), [1, 0, 0, 1])


def test_a_binary_tensor_gets_a_json_prediction_by_default(number_server):
    data = np.full((1, 3, 2), 0.25, "<f4")
    input_tensor = tensor(data, data=None, parameters={"binary_data_size": data.nbytes})
    response = infer_binary(number_server, {"inputs": [input_tensor]}, data.tobytes())
    assert response.json()["outputs"][0]["data"] == [0.75, 0.25]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({}, 400, "exactly one tensor"),
        ({"inputs": []}, 400, "exactly one tensor"),
        ({"inputs": 7}, 400, "a JSON number as inputs"),
        ({"inputs": [tensor(), tensor()]}, 400, "exactly one tensor"),
        ({"inputs": [7]}, 400, "exactly one tensor"),
        ({"instances": [7]}, 400, ":predict"),
        ({"inputs": [tensor(data=None, parameters={"shared_memory_region": "a"})]}, 400, "Shared memory"),
        (
            {
                "inputs": [tensor()],
                "outputs": [{"name": "output", "parameters": {"shared_memory_region": "a"}}],
            },
            400,
            "Shared memory",
        ),
        (
            {"inputs": [tensor()], "outputs": [{"name": "output", "parameters": {"classification": 1}}]},
            400,
            "classification",
        ),
        ({"inputs": [tensor(name="other")]}, 400, "name is 'other', but 'pixels' or 'input' is expected"),
        ({"inputs": [tensor(datatype="FP32")]}, 400, "datatype is 'FP32', but UINT8 is expected"),
        ({"inputs": [tensor(datatype=None)]}, 400, "is missing, but UINT8 is expected"),
        ({"inputs": [tensor()], "parameters": {"binary_data_output": 1}}, 400, "is '1', but true or false"),
        ({"inputs": [tensor(shape=[2, 3, 4, 4])]}, 400, "[n, 4, 4, 3]"),
        ({"inputs": [tensor(shape=[0, 4, 4, 3])]}, 400, "n of at least 1"),
        ({"inputs": [tensor(shape=[-2, 4, 4, 3])]}, 400, "n of at least 1"),
        ({"inputs": [tensor(shape=[2.5, 4, 4, 3])]}, 400, "n of at least 1"),
        ({"inputs": [tensor(shape=[])]}, 400, "n of at least 1"),
        ({"inputs": [tensor(shape="2x4x4x3")]}, 400, "[n, 4, 4, 3]"),
        ({"inputs": [tensor(shape=[1, 4, 4, 3])]}, 400, "the data has 96"),
        ({"inputs": [tensor(shape=[10**15, 4, 4, 3])]}, 413, "maximum is 8"),
        ({"inputs": [tensor(data=None)]}, 400, '"data"'),
        ({"inputs": [tensor(data=[300] * 96)]}, 400, "Value 0 of the input is 300"),
        ({"inputs": [tensor(data=["a"] * 96)]}, 400, "not a number"),
        ({"inputs": [tensor(data=None, parameters={"binary_data_size": 96})]}, 400, "0 bytes follow"),
        ({"inputs": [tensor()], "outputs": [{"name": "logits"}]}, 400, "'logits', but"),
    ],
)
def test_an_invalid_request_is_refused(image_server, body, status, message):
    response = infer(image_server, body)
    assert response.status_code == status
    assert message in response.json()["error"]
    assert infer(image_server, {"inputs": [tensor()]}).status_code == 200


@pytest.mark.parametrize("length", ["0", "-1", "x", "999999", "9" * 5000])
def test_an_invalid_header_length_is_refused(image_server, length):
    response = infer_binary(image_server, {"inputs": [tensor()]}, b"", length)
    assert response.status_code == 400
    assert "Inference-Header-Content-Length" in response.json()["error"]


def test_invalid_binary_tensors_are_refused(number_server):
    data = np.zeros((1, 3, 2), "<f4")
    for size, content, message in (
        (24, data.tobytes()[:-1], "binary_data_size is '24', but 23 bytes follow"),
        (20, data.tobytes()[:-4], "20 bytes, but 24 are expected"),
        (24, (data + np.nan).tobytes(), "Value 0 of the input is NaN"),
    ):
        input_tensor = tensor(data, data=None, parameters={"binary_data_size": size})
        response = infer_binary(number_server, {"inputs": [input_tensor]}, content)
        assert response.status_code == 400
        assert message in response.json()["error"]


@pytest.mark.parametrize("path", ["/v2/models/other/infer", "/v2/models/tiny/versions/2/infer"])
def test_another_model_or_version_gets_404(image_server, path):
    assert infer(image_server, {"inputs": [tensor()]}, path).status_code == 404
