"""Where the model can train: each accelerator with what it can hold, how long it takes and what it costs."""

import math
import re
from collections.abc import Sequence
from typing import Literal

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.problems import did_you_mean
from modelyard.pipelines.environments.accelerators import known
from modelyard.pipelines.planning import money
from modelyard.pipelines.planning.compute import Compute, step_seconds
from modelyard.pipelines.planning.hardware import Hardware, Row
from modelyard.pipelines.planning.memory import Fit, Memory
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown

ASKED = re.compile(r"^(?P<name>.+?)(?:x(?P<count>\d+))?$")


class Offer(Record):
    """An accelerator and whether it can do it; `refused` says why not, with the remedy.

    `hour` are the USD of an hour on demand, `on_demand` and `spot` those of the training.
    `train` are the seconds of all training steps, without start, compilation and export, which depend on the
    host. `remark` is what one has to know.
    """

    accelerator: str
    count: int
    kind: Literal["gpu", "tpu"]
    memory: float
    fit: Fit
    refused: str | None
    train: Quantity
    hour: Quantity
    on_demand: Quantity
    spot: Quantity
    price: str
    remark: str = ""


def wanted(texts: Sequence[str], hardware: Hardware) -> list[tuple[str, int]]:
    """Return what `--on nvidia-l4x2` means; each accelerator of the file when nothing is asked.

    Raises:
        ConfigError: no such accelerator, or no node has so many.
    """
    if not texts:
        return [(name, min(_counts(name))) for name in hardware.rows]
    return [_wanted(text, hardware) for text in texts]


def offers(
    asked: Sequence[tuple[str, int]],
    hardware: Hardware,
    memory: Memory,
    work: Compute,
    dtype: str,
    backend: str,
) -> list[Offer]:
    """Return what the accelerators offer, the best first: those that can do it, by money, then by time."""
    found = [_offer(*one, hardware, memory, work, dtype, backend) for one in asked]
    return sorted(found, key=_rank)


def _offer(
    name: str,
    count: int,
    hardware: Hardware,
    memory: Memory,
    work: Compute,
    dtype: str,
    backend: str,
) -> Offer:
    row, kind = hardware.rows[name], known()[name].kind
    fit = memory.fit(row.memory)
    refused = _refusal(name, row, kind, backend, dtype, memory)
    seconds = unknown(refused) if refused else _training(step_seconds(work, row, dtype), work)
    on_demand, spot = (money.cost(seconds, row.price, count, spot) for spot in (False, True))
    return Offer(
        accelerator=name,
        count=count,
        kind=kind,
        memory=row.memory,
        fit=fit,
        refused=refused,
        train=seconds,
        hour=money.cost(exactly(money.HOUR), row.price, count, spot=False),
        on_demand=on_demand,
        spot=spot,
        price=_priced(row, hardware),
        remark=_remark(count, fit, row, memory, "" if on_demand.why == seconds.why else on_demand.why),
    )


def _training(step: Quantity, work: Compute) -> Quantity:
    """Return the seconds of all steps; early stopping may end them before."""
    found = step.scaled(work.steps)
    return found if step.low is None else found.model_copy(update={"low": step.low * work.least_steps})


def _refusal(name: str, row: Row, kind: str, backend: str, dtype: str, memory: Memory) -> str | None:
    if kind == "tpu" and backend == "tensorflow":
        return "TensorFlow 2.21 has no TPU build: set environment.keras_backend: jax (image train-tpu)"
    if memory.fit(row.memory) == "does not fit":
        needs = f"{memory.fixed / 1e9:.3g} GB of variables and gradients for {row.memory / 1e9:.3g} GB"
        return f"{needs}: Keras on TensorFlow cannot split it; take a larger device, or a smaller model"
    if dtype in ("mixed_bfloat16", "bfloat16") and row.peak_tflops.bf16 == "unsupported":
        return f"{name} has no bfloat16: use mixed_float16"
    return None


def _remark(count: int, fit: Fit, row: Row, memory: Memory, price: str) -> str:
    said = []
    if count > 1:
        said.append("the step trains on one device: the others would idle")
    if fit == "unknown":
        batch = memory.largest_batch(row.memory)
        likely = f"a batch of about {batch:,} does" if batch else "not even one example does for sure"
        said.append(f"whether it fits is known by --probe there only; {likely}")
    if price:
        said.append(f"USD: {price}")
    return "; ".join(said)


def _priced(row: Row, hardware: Hardware) -> str:
    if row.price is None:
        return "unknown"
    price = row.price
    of = f"{price.count} accelerators" if price.count > 1 else "one accelerator"
    scope = {
        "vm": f"a machine with {of}",
        "accelerator": f"{of} alone",
        "chip": "a chip and its part of a machine",
    }
    note = f"; {price.note}" if price.note else ""
    return (
        f"{scope[price.scope]}, {price.region}, {hardware.sources[price.source]}, read {hardware.read}{note}"
    )


def _rank(offer: Offer) -> tuple[bool, bool, bool, bool, float, float]:
    """Order by whether it works and is known to fit, then by money, then by time.

    What is known comes before what is only bounded: a lower bound is no smaller than a number. Where no time
    is known, an hour's money decides: steps that wait for their host take about as long on each.
    """
    unknown_time, part_of_the_price = offer.train.value is None, offer.hour.high is None
    dollars = (offer.hour if unknown_time else offer.on_demand).value or math.inf
    seconds = offer.train.value or offer.train.low or math.inf
    return offer.refused is not None, offer.fit != "fits", unknown_time, part_of_the_price, dollars, seconds


def _wanted(text: str, hardware: Hardware) -> tuple[str, int]:
    found = ASKED.match(text)
    name = _named(text, hardware) or (found["name"] if found else text)
    name = _named(name, hardware) or name
    if name in hardware.rejected:
        raise ConfigError(
            f"--on {text}: the row of {name} in {hardware.path} was left out: {hardware.rejected[name]}."
        )
    if name not in hardware.rows:
        names = list(hardware.rows)
        near = did_you_mean(name, names) or f"; they are {', '.join(names)}."
        raise ConfigError(f"--on {text}: {name!r} is no accelerator of {hardware.path}{near}")
    counts = _counts(name)
    count = int(found["count"]) if found and found["count"] and not _named(text, hardware) else min(counts)
    if count not in counts:
        raise ConfigError(
            f"--on {text}: a node has {', '.join(map(str, counts))} of {name}, not {count}. Take one of them."
        )
    return name, count


def _named(text: str, hardware: Hardware) -> str | None:
    """Return the row that a name, or its unmistakable end, means: l4, h100-80gb."""
    if text in hardware.rows:
        return text
    ends = [name for name in hardware.rows if name.endswith(f"-{text}")]
    return ends[0] if len(ends) == 1 else None


def _counts(name: str) -> list[int]:
    one = known()[name]
    return sorted(one.counts or one.topologies.values())
