"""Describe the data before a run: from prepared examples, otherwise from its kind.

Local data is prepared with the steps and the cache of a run, which later finds it in the cache. Remote data
is prepared only with `--fetch`.
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Normalization, Record, Schema, Statistics
from modelyard.components.errors import ConfigError
from modelyard.components.fingerprint.identity import fingerprint_data
from modelyard.components.source.settings import KINDS
from modelyard.components.store.storage import local_path
from modelyard.pipelines.compile.compiler import create_specs, local_images
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.local.execution import LocalExecution
from modelyard.pipelines.train_to_serve import build_preparation

CIFAR10_ROWS = {"train": 50_000, "test": 10_000}


class Dataset(Record):
    """The examples of each split. `features` is the folder that preprocess wrote, empty when it has not run.

    `targets` says in a few words what the targets of the training examples are, where they were counted.
    """

    examples: Schema
    normalization: Normalization
    rows: dict[str, int]
    targets: str = ""
    features: str = ""

    @property
    def row_bytes(self) -> int:
        """Return the bytes of one example in a shard, with its target."""
        return int(np.prod(self.examples.shape)) * np.dtype(self.examples.dtype).itemsize + 8


def describe_dataset(config: Config, rows: int | None, outputs: int | None, fetch: bool) -> Dataset:
    """Return the description of a configuration's data.

    Args:
        config: the configuration.
        rows: the number of examples, if the user gives it.
        outputs: the number of values in an answer, if the user gives it.
        fetch: download what is not on this machine.

    Raises:
        DataError: the data is missing or not what the configuration says.
        ConfigError: too little is known without a download, or `rows` is given for data of this machine.
    """
    here = bool(KINDS[config.data.kind].bundled_files or local_path(str(config.data.source), "data.source"))
    if here and rows is not None:
        source = config.data.source or config.data.kind
        raise ConfigError(
            f"--rows is {rows:,}, but the examples of {source} are on this machine and are counted. Leave it "
            "out."
        )
    if (here or fetch) and rows is None:
        return _prepared(prepare(config))
    return _by_kind(config, rows, outputs)


def prepare(config: Config) -> Path:
    """Run ingest and preprocess on this machine, or use their cached result; return the features.

    Raises:
        ModelyardError: what a step ended with.
    """
    with run_folder.create(run_folder.home()) as folder:
        features = _Preparation(config, folder).features()  # without a start.json, it does not count as a run
    if folder not in features.parents:  # everything came from the cache
        shutil.rmtree(folder)
    return features


class _Preparation(LocalExecution):
    """The first steps of a run."""

    def features(self) -> Path:
        """Run them and return the folder."""
        self._execute()
        return Path(self._task.output.path)

    def _pipeline(self) -> Callable[..., Any]:
        images, found = local_images(create_specs(self.config)), fingerprint_data(self.config.source())

        prepare = build_preparation(lambda step, task: task.set_container_image(images[step]))

        def start(ingest_spec: str, preprocess_spec: str, **_: Any) -> None:
            self._task = prepare(ingest_spec=ingest_spec, preprocess_spec=preprocess_spec, fingerprint=found)

        return start


def _prepared(folder: Path) -> Dataset:
    schema = artifacts.read(folder / "schema.json", Schema)
    targets = artifacts.read(folder / "statistics.json", Statistics).targets["train"]
    return Dataset(
        examples=schema,
        normalization=artifacts.read(folder / "normalization.json", Normalization),
        rows=schema.splits,
        targets=problems.get_problem(schema.problem).describe_targets(schema, targets),
        features=str(folder),
    )


def _by_kind(config: Config, rows: int | None, outputs: int | None) -> Dataset:
    data, resize, targets = config.data, config.data.resize, ""
    if data.kind == "cifar10":
        shape, count = (32, 32, 3), 10
        source = CIFAR10_ROWS if rows is None else {"all": rows}
        each = _split(source, config)["train"] // count
        targets = "" if rows else f"{count} classes, with about {each:,} training examples of each"
    elif data.kind == "images" and resize and outputs and rows:
        shape, count, source = (resize.height, resize.width, data.channels), outputs, {"all": rows}
    else:
        raise ConfigError(
            f"The examples of {data.source} are not on this machine, so their number and shape are unknown. "
            "Give --fetch to download and prepare them, or, for images with data.resize, --rows and "
            "--outputs."
        )
    return Dataset(
        examples=Schema(
            shape=shape, dtype="uint8", problem=config.problem, names=tuple(map(str, range(count))), splits={}
        ),
        normalization=Normalization(
            deviation=(data.scale or 255.0,) if data.normalize == "scale" else (1.0,)
        ),
        rows=_split(source, config),
        targets=targets,
    )


def _split(source: dict[str, int], config: Config) -> dict[str, int]:
    """Return the approximate number of examples in each split after preprocess."""
    pool = source.get("all", source.get("train", 0))
    test = source.get("test", _amount(config.data.test, pool))
    left = pool if "test" in source else pool - test
    if config.data.validation == "test":
        return {"train": left, "validation": test, "test": test}
    held = _amount(config.data.validation, left)
    return {"train": left - held, "validation": held, "test": test}


def _amount(asked: float | int | str, rows: int) -> int:
    return min(rows, asked) if isinstance(asked, int) else round(float(asked) * rows)
