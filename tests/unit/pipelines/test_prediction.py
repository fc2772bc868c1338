import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from modelyard.components.errors import DataError, NotFoundError
from modelyard.pipelines.serving.prediction import LocalModel, predict
from tests.access import make_certificate, write_private


@pytest.fixture
def model(store):
    return LocalModel(store, "tiny")


@pytest.fixture
def save_array(tmp_path):
    def save(values, dtype="uint8", name="x.npy"):
        np.save(tmp_path / name, np.asarray(values, dtype))
        return tmp_path / name

    return save


def test_predictions_are_in_the_order_of_the_files(model, save_array):
    example, batch = (
        save_array(np.full((2, 2), 255)),
        save_array([[[0, 0]] * 2, [[51, 51]] * 2], name="many.npy"),
    )
    predictions = predict(model, [example, batch])
    assert [(prediction.example, prediction.text) for prediction in predictions] == [
        (str(example), "bright"),
        (f"{batch}[0]", "dark"),
        (f"{batch}[1]", "dark"),
    ]
    assert [prediction.note for prediction in predictions] == ["1.0000", "1.0000", "0.8000"]
    assert predictions[2].values == pytest.approx({"dark": 0.8, "bright": 0.2})


def test_many_examples_are_split_into_batches(model, save_array):
    predictions = predict(model, [save_array(np.arange(1000 * 4).reshape(1000, 2, 2) % 256)])
    assert len(predictions) == 1000
    assert predictions[999].values["bright"] == pytest.approx((3996 % 256 + 1.5) / 255)


def test_whole_numbers_of_another_dtype_are_accepted(model, save_array):
    assert predict(model, [save_array(np.full((2, 2), 255), "float64")])[0].text == "bright"


def test_a_batch_is_converted_only_if_the_dtype_of_the_model_can_represent_it(model):
    batch = np.full((1, 2, 2), 255.0)
    np.testing.assert_array_equal(model.run(batch.tolist()), model.run(batch.astype("uint8")))
    for wrong in (batch / 2, batch + 1, batch * np.nan, batch[0], [[[1], [1, 2]]], None, batch.astype(str)):
        with pytest.raises(DataError):
            model.run(wrong)


@pytest.mark.parametrize(
    ("values", "dtype", "message"),
    [
        (
            [[1, 2, 3]],
            "uint8",
            "uint8 array of shape 1 x 3. The model takes uint8 arrays of shape 2 x 2, or n x 2 x 2",
        ),
        (np.empty((0, 2, 2)), "uint8", "shape 0 x 2 x 2"),
        (3, "uint8", r"shape \(\)"),
        ([[256, 0], [0, 0]], "int64", "whole numbers from 0 to 255"),
        ([[-1, 0], [0, 0]], "int64", "whole numbers from 0 to 255"),
        ([[0.5, 0], [0, 0]], "float32", "whole numbers from 0 to 255"),
        ([[np.nan, 0], [0, 0]], "float32", "whole numbers from 0 to 255"),
        ([["a", "b"], ["c", "d"]], "U1", "whole numbers from 0 to 255"),
    ],
)
def test_an_array_of_another_shape_or_dtype_is_refused_with_its_file(
    model, save_array, values, dtype, message
):
    with pytest.raises(DataError, match=f"x.npy .*{message}"):
        predict(model, [save_array(values, dtype)])


def test_missing_and_invalid_files_are_refused(model, tmp_path):
    for name in ("missing.npy", "missing.png"):
        with pytest.raises(DataError, match=rf"There is no file .*{name}"):
            predict(model, [tmp_path / name])
    (tmp_path / "x.png").touch()
    with pytest.raises(
        DataError, match=r"x.png is not a .npy file, and this model was not trained on images"
    ):
        predict(model, [tmp_path / "x.png"])
    os.mkfifo(tmp_path / "fifo.npy")
    with pytest.raises(DataError, match=r"fifo.npy is not a regular file"):
        predict(model, [tmp_path / "fifo.npy"])
    (tmp_path / "bad.npy").write_text("hello")
    with pytest.raises(DataError, match=r"bad.npy is not a .npy file of numbers.*numpy\.save"):
        predict(model, [tmp_path / "bad.npy"])
    (tmp_path / "empty.npy").touch()
    with pytest.raises(DataError, match=r"empty.npy is not a .npy file of numbers"):
        predict(model, [tmp_path / "empty.npy"])
    with (tmp_path / "many.npy").open("wb") as file:
        np.savez(file, x=np.zeros(3))
    with pytest.raises(DataError, match=r"many.npy is a .npz archive"):
        predict(model, [tmp_path / "many.npy"])
    np.save(tmp_path / "object.npy", np.array([print], object), allow_pickle=True)
    with pytest.raises(DataError, match=r"object.npy is not a .npy file of numbers"):
        predict(model, [tmp_path / "object.npy"])


def test_a_model_without_champion_names_its_versions(store):
    with pytest.raises(NotFoundError, match=r"There is no model missing .*models: tiny"):
        LocalModel(store, "missing")
    (Path(store.url) / "tiny/champion.json").unlink()
    with pytest.raises(NotFoundError, match=r"tiny has no champion .*\(1, 2\).*models promote tiny 2"):
        LocalModel(store, "tiny")
    assert LocalModel(store, "tiny", 2).version == 2


@pytest.mark.usefixtures("store")
def test_predict_prints_text_and_json(modelyard, save_array):
    file = save_array([[[0, 0]] * 2, [[255, 255]] * 2])
    output = modelyard.json("predict", "tiny", file, file)
    assert (output["model"], output["version"], len(output["predictions"])) == ("tiny", 1, 4)
    assert output["predictions"][1]["text"] == "bright"
    text = modelyard("predict", "tiny", file, "--version", 2).out.split("\n")
    assert text[2].split() == [f"{file}[1]", "bright", "1.0000"]


def test_a_server_returns_the_predictions_of_the_local_model(
    modelyard, store, save_array, tmp_path, monkeypatch
):
    file = save_array(np.arange(300 * 4).reshape(300, 2, 2) % 256)
    cert, key = (write_private(tmp_path / f"{n}.pem", data) for n, data in enumerate(make_certificate()))
    tokens = write_private(tmp_path / "tokens", "first\nsecond")
    command = [Path(sys.executable).with_name("modelyard"), "serve", "tiny", "--port", "0"]
    command += [
        "--token-file",
        tokens,
        "--tls-cert",
        cert,
        "--tls-key",
        key,
        "--store",
        store.url,
        "--access-log",
    ]
    access, local = ("--ca", cert, "--token-file", tokens), modelyard.json("predict", "tiny", file)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stdout.readline())["url"]
            remote = modelyard("predict", "tiny", file, "--url", url, "--output", "json", *access)
            unknown_model = modelyard("predict", "missing", file, "--url", url, *access)
            unknown_version = modelyard("predict", "tiny", file, "--url", url, "--version", 2, *access)
            without_ca = modelyard("predict", "tiny", file, "--url", url)
            without_token = modelyard("predict", "tiny", file, "--url", url, "--ca", cert)
            status = "rollout", "status", "tiny", "--url", url
            remote_status = modelyard(*status, *access, "--output", "json")
            status_without_ca = modelyard(*status, "--token-file", tokens)
            monkeypatch.setenv("MODELYARD_SERVING__PORT", url.rpartition(":")[2])
            monkeypatch.setenv("MODELYARD_SERVING__TLS_CERT", cert)
            monkeypatch.setenv("MODELYARD_SERVING__TLS_KEY", key)
            local_status = modelyard.json("rollout", "status", "tiny", "--token-file", tokens)
            Path(store.url, "tiny/champion.json").write_text("damaged")
            status_of_damaged_store = modelyard.json("rollout", "status", "tiny", "--token-file", tokens)
            other = write_private(tmp_path / "other.pem", make_certificate()[0])
            monkeypatch.setenv("MODELYARD_SERVING__TLS_CERT", other)
            status_of_another_certificate = modelyard.json(
                "rollout", "status", "tiny", "--token-file", tokens
            )
        finally:
            server.terminate()
    assert json.loads(remote.out) == local
    assert "CERTIFICATE_VERIFY_FAILED" in status_without_ca.err, "--url always verifies the certificate"
    assert local_status["stable"]["version"] == status_of_damaged_store["stable"]["version"] == 1
    assert status_of_damaged_store["champion"] is None
    assert status_of_another_certificate["stable"] is None
    for result in (unknown_model, unknown_version, without_ca, without_token, status_without_ca):
        assert result.code == 8
    assert "404" in unknown_model.err
    assert "CERTIFICATE_VERIFY_FAILED" in without_ca.err
    assert "401" in without_token.err
    assert json.loads(remote_status.out)["stable"]["version"] == 1
    assert modelyard(*status, *access).code == 8, "the server has ended"
    assert modelyard(*status, "-e", "kind").code == 2, "the cluster has the status"
    assert modelyard("predict", "tiny", file, "--ca", cert).code == 2, "there is no server to trust"


def test_a_url_without_a_server_is_an_error(modelyard, save_array):
    result = modelyard("predict", "tiny", save_array([[0, 0]] * 2), "--url", "http://127.0.0.1:9")
    assert result.code == 8
    assert "modelyard serve" in result.err


@pytest.mark.usefixtures("store")
@pytest.mark.parametrize(
    "option", ["--url=nonsense", "--url=http://[", "--url=ftp://x", "--token-file=missing"]
)
def test_invalid_options_for_a_server_are_usage_errors(modelyard, save_array, option):
    file = save_array([[0, 0]] * 2)
    url = ["--url", "http://127.0.0.1:9"] if option.startswith("--token") else []
    for command in (("predict", "tiny", file, *url), ("rollout", "status", "tiny")):
        result = modelyard(*command, option)
        assert (result.code, option.partition("=")[0] in result.err) == (2, True)
