"""Accelerators and prices, and the memory of this machine."""

import json
from pathlib import Path
from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.components.train.measurement import Cost
from modelyard.pipelines.environments.accelerators import CATALOG, accelerator_types
from modelyard.pipelines.planning.hardware import list_options, load_catalog
from modelyard.pipelines.planning.plan import estimate_memory

PRICE: dict[str, Any] = {
    "region": "us-central1",
    "scope": "vm",
    "count": 8,
    "on_demand": 80.0,
    "spot": 20.0,
    "source": "a list",
}
ROW: dict[str, Any] = {"kind": "gpu", "counts": [1, 8], "memory_gb": 24, "price": PRICE}


def write(path: Path, **accelerators: dict[str, Any]) -> Path:
    path.write_text(json.dumps({"read": "2026-11-23", "accelerators": accelerators}), encoding="utf-8")
    return path


def test_the_catalog_has_the_memory_of_all_accelerators() -> None:
    catalog = load_catalog(CATALOG)
    assert [name for name, entry in catalog.accelerators.items() if entry.memory_gb is None] == ["gpu"]
    assert catalog.accelerators.keys() == accelerator_types().keys()


def test_a_custom_catalog_has_prices(tmp_path: Path) -> None:
    kind = load_catalog(write(tmp_path / "catalog.yaml", gpu=ROW)).accelerators["gpu"]
    assert kind.price
    assert (kind.price.per_hour(1, spot=False), kind.price.per_hour(16, spot=True)) == (80.0, 40.0)


@pytest.mark.parametrize(
    ("change", "hourly"),
    [({"scope": "accelerator"}, 10.0), ({"on_demand": None}, None), ({"on_demand_counts": [8]}, None)],
)
def test_the_price_per_hour_is_that_of_one_accelerator(
    tmp_path: Path, change: dict[str, Any], hourly: float | None
) -> None:
    row = {**ROW, "price": {**PRICE, **change}}
    kind = load_catalog(write(tmp_path / "catalog.yaml", gpu=row)).accelerators["gpu"]
    assert kind.price
    assert kind.price.per_hour(1, spot=False) == hourly


@pytest.mark.parametrize(
    ("name", "row", "message"),
    [
        ("gpu", {**ROW, "price": {**PRICE, "spot": 90.0}}, "not below on_demand"),
        ("gpu", {**ROW, "price": {**PRICE, "count": 1, "on_demand": 700.0}}, "on_demand is 700"),
        ("gpu", {**ROW, "memory_gb": 24576}, "memory_gb"),
        ("gpu", {**ROW, "color": "green"}, "color"),
        ("nvidia-l3", ROW, "nvidia-l4"),
        ("custom", ROW, "nvidia-tesla-t4"),
    ],
)
def test_an_invalid_entry_of_the_catalog_is_refused(
    tmp_path: Path, name: str, row: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        load_catalog(write(tmp_path / "catalog.yaml", **{name: row}))


@pytest.mark.parametrize("text", ["- a list", "read: 2026-11-23", "read: soon\naccelerators: {}", None])
def test_an_invalid_catalog_is_refused(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "catalog.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(ConfigError, match=r"catalog\.yaml"):
        load_catalog(path)


def test_options_are_sorted_by_fit_then_backend_then_price(cost: Cost) -> None:
    memory = estimate_memory(cost.model_copy(update={"weights": 20 * 10**9}))
    ranked = list_options(load_catalog(CATALOG), memory, "tensorflow")
    fits = [option for option in ranked if option.fit == "fits"]
    assert [option.accelerator for option in fits[:2]] == ["nvidia-tesla-a100", "nvidia-a100-80gb"]
    assert [option.note for option in fits].index("JAX only") > 5
    assert {option.accelerator for option in ranked if option.fit == "does not fit"} >= {"nvidia-tesla-t4"}
    assert ranked[-1].largest_batch == 0
    assert not any("JAX" in option.note for option in list_options(load_catalog(CATALOG), memory, "jax"))
