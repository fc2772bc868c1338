"""What accelerators have and cost, from a dated file that anyone can replace.

    hardware = load()
    hardware.rows["nvidia-l4"].memory, hardware.rejected

A row that contradicts itself is left out, with the reason: price lists that are read by programs have such
rows. So is one that no step could ask for.
"""

from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from modelyard.components.errors import ConfigError
from modelyard.components.settings import Settings
from modelyard.pipelines.config.problems import did_you_mean
from modelyard.pipelines.config.text import parse
from modelyard.pipelines.environments.accelerators import known

SHIPPED = Path(__file__).parent / "accelerators.yaml"
DEAREST = 500.0  # USD per accelerator and hour: catalogues have 700 where they have no price
# what is outside is in another unit: TB/s, MiB, GFLOP/s
MEMORY = (1.0, 1_000.0)
BANDWIDTH = (50.0, 20_000.0)
PEAK = (1.0, 20_000.0)

Unknown = Literal["unknown"]
Peak = float | Literal["unknown", "unsupported"]


class Peaks(Settings):
    """Dense TFLOP/s of one accelerator."""

    bf16: Peak
    fp16: Peak
    fp32: Peak


class Price(Settings):
    """USD per hour of a machine with `count` accelerators, of these alone, or of a chip with its part of one.

    `on_demand_counts` are how many accelerators a machine has that can be had on demand; empty when all can.
    """

    region: str
    scope: Literal["vm", "accelerator", "chip"]
    count: int = Field(ge=1)
    on_demand_counts: tuple[int, ...] = Field(default=(), strict=False)
    on_demand: float | Unknown
    spot: float | Unknown
    source: str
    note: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("on_demand", "spot"):
            value = getattr(self, name)
            if value != "unknown" and not 0 < value / self.count < DEAREST:
                raise ValueError(
                    f"price.{name} is {value:g} for {self.count}: a price per accelerator and hour is above "
                    f"0 and below {DEAREST:g}; some catalogues write a number where they have none"
                )
        both = self.on_demand != "unknown" and self.spot != "unknown"
        if both and self.spot >= self.on_demand:  # type: ignore[operator]
            raise ValueError(
                f"price.spot {self.spot} is not below price.on_demand {self.on_demand}: one of them is the "
                "price of something else"
            )
        return self


class Row(Settings):
    """One accelerator."""

    memory_gb: float | None = None
    memory_gib: float | None = None
    bandwidth_gbps: float | Unknown
    peak_tflops: Peaks
    price: Price | None = None
    sources: tuple[str, ...] = Field(min_length=1, strict=False)

    @property
    def memory(self) -> float:
        """Return its memory in bytes."""
        return self.memory_gb * 1e9 if self.memory_gb else float(self.memory_gib or 0) * 2**30

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.memory_gb is None) == (self.memory_gib is None):
            raise ValueError("memory_gb and memory_gib are the same thing: give one of them")
        for name in ("memory_gb", "memory_gib"):
            _within(name, getattr(self, name), MEMORY)
        _within("bandwidth_gbps", self.bandwidth_gbps, BANDWIDTH)
        peaks = self.peak_tflops.model_dump()
        for name, peak in peaks.items():
            _within(f"peak_tflops.{name}", peak, PEAK)
        numbers = {name: value for name, value in peaks.items() if isinstance(value, float)}
        for half in ("bf16", "fp16"):
            if half in numbers and numbers[half] < numbers.get("fp32", 0.0):
                raise ValueError(
                    f"peak_tflops.{half} {numbers[half]:g} is below fp32 {numbers['fp32']:g}: half as many "
                    "bits are never slower; one of them is of another accelerator"
                )
        return self


def _within(name: str, value: object, bounds: tuple[float, float]) -> None:
    """Raise when a number is none (nan is within nothing), or in another unit."""
    low, high = bounds
    if isinstance(value, float) and not low <= value <= high:
        raise ValueError(f"{name} is {value:g}: in its unit it is between {low:g} and {high:,.0f}")


class Hardware(Settings):
    """The rows that hold together, and what is wrong with the others."""

    path: str
    read: date
    sources: dict[str, str]
    rows: dict[str, Row]
    rejected: dict[str, str]

    def source(self, row: Row) -> str:
        """Return where a row's figures are from, price aside."""
        return "; ".join(self.sources[name] for name in row.sources)


def load(path: Path | None = None) -> Hardware:
    """Return what a file says; the shipped one when None.

    Raises:
        ConfigError: it cannot be read, is no such file, or no row is left.
    """
    file = path or SHIPPED
    try:
        said = parse(file.read_text(encoding="utf-8"), str(file)).value
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} cannot be read: {error}. Name a file like {SHIPPED}.") from error
    keys = ("read", "sources", "accelerators")
    if not isinstance(said, dict) or _wrong_keys(said, keys):
        raise ConfigError(
            f"{file} needs the keys {', '.join(keys)} and no others. Compare it with {SHIPPED}."
        )
    if wrong := [name for name, title in said["sources"].items() if not title or not isinstance(title, str)]:
        strange = said["sources"][wrong[0]]
        raise ConfigError(f"{file}: sources.{wrong[0]} is {strange!r}. Say in words what was read, and when.")
    rows, rejected = _rows(said)
    if not rows:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in rejected.items())
        raise ConfigError(f"{file} has no accelerator that holds together. {reasons}".rstrip(". ") + ".")
    try:
        read = said["read"] if isinstance(said["read"], date) else date.fromisoformat(str(said["read"]))
    except ValueError as error:
        raise ConfigError(f"{file}: read is {said['read']!r}. Give the date on which it was read.") from error
    return Hardware(path=str(file), read=read, sources=said["sources"], rows=rows, rejected=rejected)


def _wrong_keys(said: dict[str, Any], keys: tuple[str, ...]) -> bool:
    """Say whether a mapping has other keys than these, or no mappings in the last two."""
    return set(said) != set(keys) or not all(isinstance(said[key], dict) for key in keys[1:])


def _rows(said: dict[str, Any]) -> tuple[dict[str, Row], dict[str, str]]:
    rows: dict[str, Row] = {}
    rejected: dict[str, str] = {}
    for name, values in said["accelerators"].items():
        if name not in known():
            near = did_you_mean(name, list(known())) or f"; they are {', '.join(known())}"
            rejected[name] = f"no accelerator.type has this name{near.rstrip('?')}"
            continue
        try:
            row = Row.model_validate(values)
        except ValidationError as error:
            rejected[name] = "; ".join(_said(problem) for problem in error.errors())
            continue
        named = (*row.sources, *((row.price.source,) if row.price else ()))
        if strange := [one for one in named if one not in said["sources"]]:
            rejected[name] = f"the source {strange[0]} is not among the file's sources"
        else:
            rows[name] = row
    return rows, rejected


def _said(problem: Any) -> str:
    where = ".".join(map(str, problem["loc"]))
    message = str(problem["msg"]).removeprefix("Value error, ")
    return f"{where}: {message}" if where else message
