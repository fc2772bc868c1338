"""The file of accelerators: what holds together is taken, what contradicts itself is not, with the reason."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from modelyard.components.errors import ConfigError
from modelyard.pipelines.environments.accelerators import known
from modelyard.pipelines.planning.hardware import SHIPPED, Row, load

ROW: dict[str, Any] = {
    "memory_gb": 24,
    "bandwidth_gbps": 300,
    "peak_tflops": {"bf16": 120, "fp16": 120, "fp32": 30},
    "price": {"region": "here", "scope": "vm", "count": 1, "on_demand": 1.0, "spot": 0.4, "source": "LIST"},
    "sources": ["SHEET"],
}
GOOD = {"read": "2026-11-23", "sources": {"LIST": "a price list", "SHEET": "a data sheet"}}


def write(path: Path, **accelerators: dict[str, Any]) -> Path:
    path.write_text(json.dumps({**GOOD, "accelerators": accelerators}), encoding="utf-8")
    return path


def test_every_shipped_row_holds_together() -> None:
    hardware = load()
    assert hardware.rejected == {}
    assert set(hardware.rows) == set(known()) - {"gpu"}
    assert hardware.read.isoformat() == "2026-11-23"
    assert hardware.rows["nvidia-l4"].peak_tflops.bf16 == "unknown"  # nobody read a dense figure


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    hardware = load(write(tmp_path / "mine.yaml", gpu=ROW))
    assert hardware.rows["gpu"].memory == 24e9
    assert hardware.source(hardware.rows["gpu"]) == "a data sheet"


def test_a_name_that_no_step_can_ask_for_is_left_out_with_the_reason(tmp_path: Path) -> None:
    hardware = load(write(tmp_path / "mine.yaml", gpu=ROW, mine=ROW, **{"nvidia-l3": ROW}))
    assert list(hardware.rows) == ["gpu"]
    assert hardware.rejected["mine"].startswith("no accelerator.type has this name; they are gpu, nvidia-")
    assert (
        hardware.rejected["nvidia-l3"]
        == "no accelerator.type has this name; did you mean nvidia-l4 or nvidia-b200"
    )


def test_a_file_of_such_names_alone_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no accelerator that holds together\. mine: no accelerator.type"):
        load(write(tmp_path / "mine.yaml", mine=ROW))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"price": {**ROW["price"], "on_demand": 1.846, "spot": 1.964}}, "price.spot 1.964 is not below"),
        ({"price": {**ROW["price"], "on_demand": 700.0}}, "price.on_demand is 700 for 1"),
        ({"price": {**ROW["price"], "spot": -1.0}}, "price.spot is -1 for 1"),
        (
            {"price": {**ROW["price"], "source": "GOSSIP"}},
            "the source GOSSIP is not among",
        ),
        ({"memory_gib": 24}, "memory_gb and memory_gib are the same thing"),
        ({"bandwidth_gbps": -3}, "bandwidth_gbps is -3"),
        ({"bandwidth_gbps": 3.35}, "bandwidth_gbps is 3.35: in its unit it is between 50 and 20,000"),
        ({"memory_gb": 24576}, "memory_gb is 24576"),
        ({"memory_gb": 0}, "memory_gb is 0"),
        ({"peak_tflops": {"bf16": 989000, "fp16": 120, "fp32": 30}}, "peak_tflops.bf16 is 989000"),
        ({"peak_tflops": {"bf16": 20, "fp16": 120, "fp32": 30}}, "peak_tflops.bf16 20 is below fp32 30"),
        ({"peak_tflops": {"bf16": 120, "fp16": 120, "fp32": 0}}, "peak_tflops.fp32 is 0"),
        ({"colour": "green"}, "colour: Extra inputs are not permitted"),
        ({"sources": []}, "sources: "),
    ],
)
def test_what_contradicts_itself_is_left_out(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    rows = {"nvidia-l4": ROW, "nvidia-b200": {**ROW, **change}}
    hardware = load(write(tmp_path / "mine.yaml", **rows))
    assert list(hardware.rows) == ["nvidia-l4"]
    assert reason in hardware.rejected["nvidia-b200"]


@pytest.mark.parametrize("strange", [math.nan, math.inf])
@pytest.mark.parametrize("key", ["memory_gb", "bandwidth_gbps"])
def test_what_is_no_number_is_none(key: str, strange: float) -> None:
    with pytest.raises(ValueError, match=f"{key} is {strange}"):
        Row.model_validate({**ROW, key: strange})


def test_a_price_of_eight_is_one_of_eight(tmp_path: Path) -> None:
    price = {**ROW["price"], "count": 8, "on_demand": 700.0, "spot": 300.0}
    assert "gpu" in load(write(tmp_path / "mine.yaml", gpu={**ROW, "price": price})).rows


def test_a_file_without_any_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no accelerator that holds together\. gpu: bandwidth_gbps is -3"):
        load(write(tmp_path / "mine.yaml", gpu={**ROW, "bandwidth_gbps": -3}))


@pytest.mark.parametrize("title", [1, "", None])
def test_a_source_is_named_in_words(tmp_path: Path, title: Any) -> None:
    path = tmp_path / "mine.yaml"
    said = {**GOOD, "sources": {"LIST": "a price list", "SHEET": title}, "accelerators": {"gpu": ROW}}
    path.write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"sources.SHEET is {title!r}. Say in words"):
        load(path)


@pytest.mark.parametrize("text", ["- a list", "read: 2026-11-23", "nonsense: true"])
def test_what_is_no_such_file_is_an_error(tmp_path: Path, text: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match="needs the keys read, sources, accelerators"):
        load(path)


def test_a_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_the_shipped_file_names_its_sources() -> None:
    said = yaml.safe_load(SHIPPED.read_text(encoding="utf-8"))
    used = {name for row in said["accelerators"].values() for name in row["sources"]}
    used |= {row["price"]["source"] for row in said["accelerators"].values() if "price" in row}
    assert used == set(said["sources"])
