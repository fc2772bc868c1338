"""The file of accelerators: what holds together is taken, what contradicts itself is not, with the reason."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from components.errors import ConfigError
from pipelines.accelerators import known
from pipelines.plan.hardware import SHIPPED, load

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
    hardware = load(write(tmp_path / "mine.yaml", mine=ROW))
    assert hardware.rows["mine"].memory == 24e9
    assert hardware.source(hardware.rows["mine"]) == "a data sheet"


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
        ({"peak_tflops": {"bf16": 20, "fp16": 120, "fp32": 30}}, "peak_tflops.bf16 20 is below fp32 30"),
        ({"peak_tflops": {"bf16": 120, "fp16": 120, "fp32": 0}}, "peak_tflops.fp32 is 0"),
        ({"colour": "green"}, "colour: Extra inputs are not permitted"),
        ({"sources": []}, "sources: "),
    ],
)
def test_what_contradicts_itself_is_left_out(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    hardware = load(write(tmp_path / "mine.yaml", good=ROW, bad={**ROW, **change}))
    assert list(hardware.rows) == ["good"]
    assert reason in hardware.rejected["bad"]


def test_a_price_of_eight_is_one_of_eight(tmp_path: Path) -> None:
    price = {**ROW["price"], "count": 8, "on_demand": 700.0, "spot": 300.0}
    assert "eight" in load(write(tmp_path / "mine.yaml", eight={**ROW, "price": price})).rows


def test_a_file_without_any_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no accelerator that holds together\. bad: bandwidth_gbps is -3"):
        load(write(tmp_path / "mine.yaml", bad={**ROW, "bandwidth_gbps": -3}))


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
