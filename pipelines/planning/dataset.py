"""Describe the data before a run: from the prepared examples, or for remote data from its kind.

Local data is prepared with the steps and the cache of a run, so that a later run finds it in the cache.
Remote data is prepared only if it may be downloaded (`--fetch`).
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

CIFAR10_EXAMPLES = {"train": 50_000, "test": 10_000}


class Dataset(Record):
    """The form of an example and the number of examples of each split.

    `features` is the output folder of preprocess; empty if it has not run. `targets` describes the targets
    of the training examples, if they were counted.
    """

    example_schema: Schema
    normalization: Normalization
    examples: dict[str, int]
    targets: str = ""
    features: str = ""

    @property
    def example_bytes(self) -> int:
        """The bytes of one example in a shard, with its target."""
        schema = self.example_schema
        return int(np.prod(schema.shape)) * np.dtype(schema.dtype).itemsize + 8


def describe_dataset(config: Config, examples: int | None, outputs: int | None, fetch: bool) -> Dataset:
    """Return the description of a configuration's data.

    Args:
        config: the configuration.
        examples: the number of examples, for remote data.
        outputs: the number of values in a prediction, for remote data.
        fetch: download remote data.

    Raises:
        DataError: the data is missing or does not fit the configuration.
        ConfigError: too little is known without a download, or `examples` is set for local data.
    """
    source = config.data.source or config.data.kind
    is_local = KINDS[config.data.kind].bundled_files or local_path(str(config.data.source), "data.source")
    if is_local and examples is not None:
        raise ConfigError(
            f"--examples is {examples:,}, but the examples of {source} are on this machine and are counted. "
            "Remove --examples."
        )
    if (is_local or fetch) and examples is None:
        return _read_features(prepare_features(config))
    return _describe_remote(config, examples, outputs)


def prepare_features(config: Config) -> Path:
    """Run ingest and preprocess on this machine, or use their cached outputs; return the features.

    Raises:
        ModelyardError: the error of the step that failed.
    """
    with run_folder.create(run_folder.home()) as folder:
        features = _Preparation(config, folder).run()  # without a start.json, the folder is not a run
    if folder not in features.parents:  # everything came from the cache
        shutil.rmtree(folder)
    return features


class _Preparation(LocalExecution):
    """The first steps of a run."""

    def run(self) -> Path:
        """Run the steps and return the features."""
        self._run_pipeline()
        return Path(self._task.output.path)

    def _create_pipeline(self) -> Callable[..., Any]:
        images, data = local_images(create_specs(self.config)), fingerprint_data(self.config.source())
        prepare = build_preparation(lambda step, task: task.set_container_image(images[step]))

        def start(ingest_spec: str, preprocess_spec: str, **_: Any) -> None:
            self._task = prepare(ingest_spec=ingest_spec, preprocess_spec=preprocess_spec, fingerprint=data)

        return start


def _read_features(folder: Path) -> Dataset:
    schema = artifacts.read(folder / "schema.json", Schema)
    targets = artifacts.read(folder / "statistics.json", Statistics).targets["train"]
    return Dataset(
        example_schema=schema,
        normalization=artifacts.read(folder / "normalization.json", Normalization),
        examples=schema.splits,
        targets=problems.get_problem(schema.problem).describe_targets(schema, targets),
        features=str(folder),
    )


def _describe_remote(config: Config, examples: int | None, outputs: int | None) -> Dataset:
    """Return the description of data that is not on this machine, from its kind and the options."""
    data, resize, targets = config.data, config.data.resize, ""
    if data.kind == "cifar10":
        shape, count = (32, 32, 3), 10
        source = CIFAR10_EXAMPLES if examples is None else {"all": examples}
        if examples is None:
            per_class = _estimate_splits(source, config)["train"] // count
            targets = f"{count} classes, with about {per_class:,} training examples of each"
    elif data.kind == "images" and resize and outputs and examples:
        shape, count, source = (resize.height, resize.width, data.channels), outputs, {"all": examples}
    else:
        raise ConfigError(
            f"The examples of {data.source} are not on this machine, so their number and shape are unknown. "
            "Download them with --fetch, or, for images with data.resize, set --examples and --outputs."
        )
    scale = (data.scale or 255.0,) if data.normalize == "scale" else (1.0,)
    names = tuple(map(str, range(count)))
    return Dataset(
        example_schema=Schema(shape=shape, dtype="uint8", problem=config.problem, names=names, splits={}),
        normalization=Normalization(scale=scale),
        examples=_estimate_splits(source, config),
        targets=targets,
    )


def _estimate_splits(source: dict[str, int], config: Config) -> dict[str, int]:
    """Return the approximate number of examples in each split after preprocess."""
    pool = source.get("all", source.get("train", 0))
    test = source.get("test", _estimate_part(config.data.test, pool))
    training = pool if "test" in source else pool - test
    if config.data.validation == "test":
        return {"train": training, "validation": test, "test": test}
    validation = _estimate_part(config.data.validation, training)
    return {"train": training - validation, "validation": validation, "test": test}


def _estimate_part(part: float | int | str, examples: int) -> int:
    """Return the number of examples in a part, which is a number or a fraction of all examples."""
    return min(examples, part) if isinstance(part, int) else round(float(part) * examples)
