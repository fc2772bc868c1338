"""An image of another version is refused before its step runs."""

import json
from pathlib import Path

import pytest

from modelyard.components import interface
from modelyard.components.errors import ConfigError
from modelyard.components.train.spec import TrainSpec
from modelyard.pipelines.compile.preflight import check_interfaces
from modelyard.pipelines.environments.environment import INTERFACES_FILE, Environment
from modelyard.pipelines.steps import IMAGES, STEPS


@pytest.mark.parametrize("step", STEPS)
def test_steps_compiled_by_this_version_run(step: str, monkeypatch: pytest.MonkeyPatch) -> None:
    interface.check_interface(step)
    for name, value in interface.build_container_variables(step, "an image").items():
        monkeypatch.setenv(name, value)
    interface.check_interface(step)
    interface.check_interface("probe")  # a step may start the probe


def test_an_image_of_another_version_is_refused_with_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in interface.build_container_variables("train", "registry/train:old").items():
        monkeypatch.setenv(name, value)

    class OldSpec(TrainSpec):
        sampling: str = ""

    monkeypatch.setattr("modelyard.components.train.spec.TrainSpec", OldSpec)
    with pytest.raises(ConfigError, match=r"registry/train:old"):
        interface.check_interface("train")


def test_a_local_image_of_another_version_is_refused_before_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    environment = Environment(
        kind="kubernetes",
        store="gs://a/models",
        pipeline_root="gs://a/runs",
        images={image: f"a/{image}:1" for image in IMAGES},
    )
    check_interfaces(environment)
    Path(INTERFACES_FILE).parent.mkdir()
    interfaces = {
        "a/train:1": {"train": interface.compute_interface("train")},
        "a/deploy:1": {"explain": "0.0.9 (abc)"},
    }
    Path(INTERFACES_FILE).write_text(json.dumps(interfaces))
    with pytest.raises(ConfigError, match=r"a/deploy:1 .*0\.0\.9"):
        check_interfaces(environment)
