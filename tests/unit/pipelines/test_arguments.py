"""Wrong arguments of the Python API."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import modelyard
from modelyard.components.errors import ConfigError, NotFoundError

REASON = {"reason": "test", "by": "me"}


@pytest.mark.parametrize(
    ("function", "arguments", "options", "name"),
    [
        (modelyard.run, (3,), {}, "config"),
        (modelyard.run, (), {"skip_unchanged": "no"}, "skip_unchanged"),
        (modelyard.plan, (), {"log": "print"}, "log"),
        (modelyard.load_config, (None, 5), {}, "overrides"),
        (modelyard.load_config, (None, "training.epochs=3"), {}, "overrides"),
        (modelyard.load_config, (None, {"training.epochs": 3}), {}, "overrides"),
        (modelyard.load_config, (None, iter(["training.epochs=3"])), {}, "overrides"),
        (modelyard.list_runs, (3,), {}, "environment"),
        (modelyard.list_runs, (None, 3), {}, "model"),
        (modelyard.list_runs, (), {"limit": -1}, "limit"),
        (modelyard.open_run, (3,), {}, "name"),
        (modelyard.open_store, (b"models",), {}, "url"),
        (modelyard.load_model, (None,), {}, "name"),
        (modelyard.load_model, ("pets", True), {}, "version"),
        (modelyard.promote, ("pets", "1"), REASON, "version"),
        (modelyard.deploy, ("pets", 1.5, "local"), REASON, "version"),
        (modelyard.serve, ("pets",), {"settings": [8080]}, "settings"),
        (modelyard.predict, ("pets", ["cat.png"]), {}, "model"),
        (modelyard.predict, ("pets", "cat.png"), {}, "files"),
        (modelyard.predict, ("pets", [3]), {}, "files"),
    ],
)
def test_an_argument_of_a_wrong_type_is_a_config_error(function, arguments, options, name):
    with pytest.raises(ConfigError, match=rf"\b{name} is\b"):
        function(*arguments, **options)


def test_a_numpy_integer_is_a_whole_number(tmp_path):
    with pytest.raises(NotFoundError):
        modelyard.load_model("pets", np.int64(1), store_url=str(tmp_path))


def test_overrides_that_a_config_ignores_are_a_config_error():
    config = modelyard.load_config()
    with pytest.raises(ConfigError, match=r"training\.epochs=1"):
        modelyard.step_specs(config, overrides=["training.epochs=1"])
    assert modelyard.step_specs(config, overrides=["environment.steps.train.cpu=1"])


def test_serve_outside_of_the_main_thread_is_a_config_error():
    with ThreadPoolExecutor(1) as executor, pytest.raises(ConfigError, match="main thread"):
        executor.submit(modelyard.serve, "pets").result()


@pytest.mark.parametrize("content", [None, "not a certificate"])
def test_a_file_without_ca_certificates_is_a_config_error(tmp_path, content):
    file = tmp_path / "ca.pem"
    if content:
        file.write_text(content)
    with pytest.raises(ConfigError, match=r"ca\.pem"):
        modelyard.load_model("pets", server_url="https://127.0.0.1:1", ca=file)
