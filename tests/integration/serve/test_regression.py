"""A regression model predicts numbers in the unit of the target."""

import httpx
import numpy as np
import pytest

from modelyard.components.errors import ServeError
from modelyard.components.server import HttpServer
from modelyard.pipelines.serving.prediction import LocalModel, RemoteModel, predict
from tests.versions import regressor_signature


def test_predictions_are_numbers(regression_server):
    assert regression_server.predict([[1, 2, 6], [0, 0, 0]]).json() == {"predictions": [[3000], [0]]}
    tensor = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [1, 2, 6]}
    body = httpx.post(f"{regression_server.url}/v2/models/tiny/infer", json={"inputs": [tensor]}).json()
    (output,) = body["outputs"]
    assert output == {"name": "predictions", "datatype": "FP32", "shape": [1, 1], "data": [3000]}


def test_both_protocols_describe_inputs_and_outputs(regression_server):
    metadata = httpx.get(f"{regression_server.url}/v2/models/tiny").json()
    assert metadata["outputs"] == [{"name": "predictions", "datatype": "FP32", "shape": [-1, 1]}]
    assert metadata["parameters"]["signature"]["problem"] == "regression"
    assert metadata["parameters"]["signature"]["outputs"][0]["names"] == ["price"]
    assert not metadata["parameters"]["ranked"]
    for path in ("/v1/models/tiny/metadata", "/v1/models/tiny/versions/1/metadata"):
        metadata = httpx.get(regression_server.url + path).json()
        assert metadata["model_spec"]["version"] == "1"
        default = metadata["metadata"]["signature_def"]["signature_def"]["serving_default"]
        assert default["outputs"]["predictions"]["dtype"] == "DT_FLOAT"
        sizes = [dimension["size"] for dimension in default["inputs"]["input"]["tensor_shape"]["dim"]]
        assert sizes == ["-1", "3"]


@pytest.mark.parametrize("path", ["/v1/models/tiny:predict", "/v2/models/tiny/infer"])
def test_a_prediction_that_is_not_finite_gets_500(regression_server, path):
    tensor = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [3e38, 0, 0]}
    body = {"instances": [[3e38, 0, 0]]} if "v1" in path else {"inputs": [tensor]}
    response = httpx.post(regression_server.url + path, json=body)
    assert response.status_code == 500
    assert "NaN or infinite" in response.json()["error"]


def test_a_binary_tensor_may_have_infinity(regression_server):
    tensor = {"name": "input", "shape": [1, 3], "datatype": "FP32", "data": [3e38, 0, 0]}
    body = {"inputs": [tensor], "parameters": {"binary_data_output": True}}
    response = httpx.post(f"{regression_server.url}/v2/models/tiny/infer", json=body)
    assert np.isinf(np.frombuffer(response.content[-4:], "<f4"))


def test_predict_requests_a_server(regression_server, tmp_path):
    np.save(tmp_path / "many.npy", np.array([[1, 2, 6], [0, 0, 0]], np.float32))
    predictions = predict(RemoteModel(HttpServer(regression_server.url), "tiny"), [tmp_path / "many.npy"])
    assert [prediction.values for prediction in predictions] == [{"price": 3000.0}, {"price": 0.0}]
    assert [float(prediction.text) for prediction in predictions] == [3000, 0]


def test_predict_refuses_a_local_prediction_that_is_not_finite(tiny_model, tmp_path):
    tiny_model.publish(regressor_signature((3,), ("price",)))
    np.save(tmp_path / "large.npy", np.array([3e38, 0, 0], np.float32))
    with pytest.raises(ServeError, match="NaN or infinite"):
        predict(LocalModel(tiny_model.models, "tiny"), [tmp_path / "large.npy"])
