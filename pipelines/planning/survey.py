"""What is known about the data before a run: from the features, if they can be had here, or from its kind."""

from pathlib import Path

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.preparation import Prepared, prepare

CIFAR10_ROWS = {"train": 50_000, "test": 10_000}


def look(config: Config, rows: int | None, classes: int | None, fetch: bool) -> Dataset:
    """Return what is known about a configuration's data.

    Data that is on this machine is prepared as the run would do it, and the run after it takes that from the
    cache. What would be downloaded is, only when that is asked for.

    Args:
        config: the configuration.
        rows: how many there are, if somebody says so.
        classes: how many classes there are, if somebody says so.
        fetch: download what is not here.

    Raises:
        DataError: the data is missing or not what the configuration says.
        ConfigError: too little is known without a download, or what is here is said to be otherwise.
    """
    here = config.data.kind == "digits" or "://" not in str(config.data.source)
    if here and rows is not None:
        data = "The digits are" if config.data.kind == "digits" else f"{config.data.source} is"
        raise ConfigError(
            f"{data} on this machine, where the rows are counted, and --rows says {rows:,}. Leave it out."
        )
    if (here or fetch) and rows is None:
        return _measured(prepare(config))
    return _by_kind(config, rows, classes)


def _measured(prepared: Prepared) -> Dataset:
    folder = Path(prepared.features)
    schema = artifacts.read(folder / "schema.json", Schema)
    return Dataset(
        examples=schema,
        normalization=artifacts.read(folder / "normalization.json", Normalization),
        rows=schema.splits,
        basis="measured",
        source="ingest and preprocess on this machine",
        features=str(folder),
        seconds=prepared.seconds,
    )


def _by_kind(config: Config, rows: int | None, classes: int | None) -> Dataset:
    data = config.data
    if data.kind == "cifar10":
        shape, names = (32, 32, 3), tuple(map(str, range(10)))
    elif data.kind == "images" and data.resize and classes:
        shape, names = (
            (data.resize.height, data.resize.width, data.channels),
            tuple(map(str, range(classes))),
        )
    else:
        raise ConfigError(
            f"What the examples of {data.source} are is not known before they are here: give --fetch, which "
            "downloads and prepares them as the run would, or, for images with data.resize, --rows and "
            "--classes."
        )
    if rows is None and data.kind != "cifar10":
        raise ConfigError(f"How many rows {data.source} has is not known. Give --rows, or --fetch.")
    source = {"all": rows} if rows is not None else CIFAR10_ROWS
    given = "said with --rows" if rows is not None else "the official archive, as its page describes it"
    return Dataset(
        examples=Schema(shape=shape, dtype="uint8", classes=names, splits={}),
        normalization=Normalization(deviation=(data.scale,) if data.normalize == "scale" else (1.0,)),
        rows=_split(source, config),
        basis="assumed" if rows is None else "given",
        source=given,
    )


def _split(source: dict[str, int], config: Config) -> dict[str, int]:
    """Return about how many rows go to each split, as preprocess would choose them."""
    pool = source.get("all", source.get("train", 0))
    test = source.get("test", _amount(config.data.test, pool))
    left = pool if "test" in source else pool - test
    if config.data.validation == "test":
        return {"train": left, "validation": test, "test": test}
    held = _amount(config.data.validation, left)
    return {"train": left - held, "validation": held, "test": test}


def _amount(asked: float | int | str, rows: int) -> int:
    return min(rows, asked) if isinstance(asked, int) else round(float(asked) * rows)
