"""Descriptions of the dataset: from prepared data, from the kind of the data, or from options."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ConfigError, DataError
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.planning import dataset
from modelyard.pipelines.planning.dataset import describe_dataset, prepare_features
from modelyard.pipelines.runners import select

IMAGES = {"kind": "images", "source": "https://example.com/pets.zip", "resize": {"height": 8, "width": 8}}
CIFAR10 = {"kind": "cifar10", "source": "https://example.com/cifar-10.tar.gz"}


def config(**data: Any) -> Config:
    return load(None, [f"data={json.dumps(data)}", "gate=null"])


def test_cifar10_is_described_without_a_download() -> None:
    description = describe_dataset(config(**CIFAR10), None, None, fetch=False)
    assert description.examples == {"train": 45_000, "validation": 5_000, "test": 10_000}
    assert (description.example_schema.shape, len(description.example_schema.names)) == ((32, 32, 3), 10)
    assert description.features == ""
    assert "4,500" in description.targets
    assert description.example_bytes == 32 * 32 * 3 + 8


def test_images_are_described_by_options() -> None:
    description = describe_dataset(config(**IMAGES, test=0.2, validation=0.1), 1000, 3, fetch=False)
    assert (description.examples, description.targets) == ({"train": 720, "validation": 80, "test": 200}, "")
    assert (description.example_schema.shape, description.example_schema.names) == (
        (8, 8, 3),
        ("0", "1", "2"),
    )


def test_validation_on_the_test_split_is_described() -> None:
    description = describe_dataset(config(**CIFAR10, validation="test"), None, None, fetch=False)
    assert description.examples == {"train": 50_000, "validation": 10_000, "test": 10_000}


@pytest.mark.parametrize(("examples", "outputs"), [(None, 3), (1000, None)])
def test_examples_and_outputs_are_required_together(examples: int | None, outputs: int | None) -> None:
    with pytest.raises(ConfigError, match="--examples and --outputs"):
        describe_dataset(config(**IMAGES), examples, outputs, fetch=False)


@pytest.mark.parametrize("data", [{"kind": "digits"}, {"kind": "npz", "source": "/data/set.npz"}])
@pytest.mark.parametrize("fetch", [False, True])
def test_examples_of_local_data_are_refused(data: Any, fetch: bool) -> None:
    with pytest.raises(ConfigError, match=r"--examples is 5,000"):
        describe_dataset(config(**data), 5000, None, fetch)


def test_digits_are_prepared_once_without_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    description = describe_dataset(load(), None, None, fetch=False)
    assert description.examples["train"] > 1000
    assert description.targets.startswith("10 classes, with ")
    assert (Path(description.features) / "schema.json").is_file()
    assert describe_dataset(load(), None, None, fetch=False) == description
    assert len(list((tmp_path / "runs").iterdir())) == 1
    assert select.list_runs(select.RunScope()) == []


def test_a_failed_preparation_is_not_listed_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    with pytest.raises(DataError):
        prepare_features(load(None, [f"data={{kind: npz, source: {tmp_path}/missing.npz}}"]))
    monkeypatch.setattr(dataset, "fingerprint_data", interrupt)
    with pytest.raises(KeyboardInterrupt):
        prepare_features(load())
    assert select.list_runs(select.RunScope()) == []
