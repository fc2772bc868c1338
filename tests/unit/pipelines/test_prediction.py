import json
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
def saved(tmp_path):
    def save(values, dtype="uint8", name="x.npy"):
        np.save(tmp_path / name, np.asarray(values, dtype))
        return tmp_path / name

    return save


def test_one_example_and_a_batch_in_the_order_of_the_files(model, saved):
    one, many = saved(np.full((2, 2), 255)), saved([[[0, 0]] * 2, [[51, 51]] * 2], name="many.npy")
    answers = predict(model, [one, many])
    assert [(answer.example, answer.answer) for answer in answers] == [
        (str(one), "bright"),
        (f"{many}[0]", "dark"),
        (f"{many}[1]", "dark"),
    ]
    assert [answer.note for answer in answers] == ["1.0000", "1.0000", "0.8000"]
    assert answers[2].values == pytest.approx({"dark": 0.8, "bright": 0.2})


def test_many_examples_are_split_into_batches(model, saved):
    answers = predict(model, [saved(np.arange(1000 * 4).reshape(1000, 2, 2) % 256)])
    assert len(answers) == 1000
    assert answers[999].values["bright"] == pytest.approx((3996 % 256 + 1.5) / 255)


def test_whole_numbers_of_another_type_are_taken(model, saved):
    assert predict(model, [saved(np.full((2, 2), 255), "float64")])[0].answer == "bright"


@pytest.mark.parametrize(
    ("values", "dtype", "said"),
    [
        ([[1, 2, 3]], "uint8", "uint8 of shape 1 x 3; this model takes uint8 of shape 2 x 2, or n x 2 x 2"),
        (np.empty((0, 2, 2)), "uint8", "shape 0 x 2 x 2"),
        (3, "uint8", r"shape \(\)"),
        ([[256, 0], [0, 0]], "int64", "whole numbers from 0 to 255"),
        ([[-1, 0], [0, 0]], "int64", "whole numbers from 0 to 255"),
        ([[0.5, 0], [0, 0]], "float32", "whole numbers from 0 to 255"),
        ([[np.nan, 0], [0, 0]], "float32", "whole numbers from 0 to 255"),
        ([["a", "b"], ["c", "d"]], "U1", "whole numbers from 0 to 255"),
    ],
)
def test_what_the_model_does_not_take_is_refused_with_the_file(model, saved, values, dtype, said):
    with pytest.raises(DataError, match=f"x.npy has .*{said}"):
        predict(model, [saved(values, dtype)])


def test_a_file_that_is_none_is_refused(model, tmp_path):
    for name in ("gone.npy", "gone.png"):
        with pytest.raises(DataError, match=rf"There is no file .*{name}"):
            predict(model, [tmp_path / name])
    (tmp_path / "x.png").touch()
    with pytest.raises(
        DataError, match=r"x.png is not a .npy file, and this model was not trained on images"
    ):
        predict(model, [tmp_path / "x.png"])
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
    with pytest.raises(NotFoundError, match=r"There is no model gone .*models: tiny"):
        LocalModel(store, "gone")
    (Path(store.url) / "tiny/champion.json").unlink()
    with pytest.raises(NotFoundError, match=r"tiny has no champion .*\(1, 2\).*models promote tiny 2"):
        LocalModel(store, "tiny")
    assert LocalModel(store, "tiny", 2).version == 2


@pytest.mark.usefixtures("store")
def test_the_command_tells_people_and_scripts(modelyard, saved):
    file = saved([[[0, 0]] * 2, [[255, 255]] * 2])
    told = json.loads(modelyard("predict", "tiny", file, file, "--output", "json").out)
    assert (told["model"], told["version"], len(told["predictions"])) == ("tiny", 1, 4)
    assert told["predictions"][1]["answer"] == "bright"
    text = modelyard("predict", "tiny", file, "--version", 2).out.split("\n")
    assert text[2].split() == [f"{file}[1]", "bright", "1.0000"]


def test_a_running_server_answers_like_the_version_here(modelyard, store, saved, tmp_path):
    file = saved(np.arange(300 * 4).reshape(300, 2, 2) % 256)
    cert, key = (write_private(tmp_path / f"{n}.pem", one) for n, one in enumerate(make_certificate()))
    tokens = write_private(tmp_path / "tokens", "first\nsecond")
    line = [
        Path(sys.executable).with_name("modelyard"),
        "serve",
        "tiny",
        "--port",
        "0",
        "--token-file",
        tokens,
    ]
    line += ["--tls-cert", cert, "--tls-key", key, "--store", store.url, "--access-log"]
    access = "--ca", cert, "--token-file", tokens
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        try:
            url = json.loads(server.stdout.readline())["url"]
            there = modelyard("predict", "tiny", file, "--url", url, "--output", "json", *access)
            unknown = modelyard("predict", "gone", file, "--url", url, *access)
            wrong = modelyard("predict", "tiny", file, "--url", url, "--version", 2, *access)
            untrusted = modelyard("predict", "tiny", file, "--url", url)
            without = modelyard("predict", "tiny", file, "--url", url, "--ca", cert)
        finally:
            server.terminate()
    assert json.loads(there.out) == json.loads(modelyard("predict", "tiny", file, "--output", "json").out)
    assert (unknown.code, wrong.code, untrusted.code, without.code) == (8, 8, 8, 8)
    assert "404" in unknown.err
    assert "CERTIFICATE_VERIFY_FAILED" in untrusted.err
    assert "401" in without.err
    assert modelyard("predict", "tiny", file, "--ca", cert).code == 2, "there is no server to trust"


@pytest.mark.parametrize("url", ["http://127.0.0.1:9", "nonsense", "http://[", "ftp://x"])
def test_an_address_without_a_server_is_told(modelyard, saved, url):
    ended = modelyard("predict", "tiny", saved([[0, 0]] * 2), "--url", url)
    assert ended.code == 8
    assert "modelyard serve" in ended.err
