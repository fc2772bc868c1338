"""The steps that run again when a key of the configuration changes."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from modelyard.pipelines.compile import compiler
from modelyard.pipelines.compile.compiler import create_specs
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.config.validation import iterate_keys, section_class
from modelyard.pipelines.steps import STEPS

IMAGES = {"kind": "images", "source": "/a.zip", "resize": {"height": 8, "width": 8}}
NPZ = {"kind": "npz", "source": "gs://a/x.npz"}
BASE: dict[str, Any] = {
    "name": "model",
    "data": IMAGES,
    "training": {"early_stopping": {}},
    "schedule": {"cron": "0 3 * * 1"},
}
CUSTOM_MODEL = {**BASE, "model": {"build": "a:b", "code": "networks", "arguments": {"width": 1}}}


def test_selected_modules_are_in_components():
    by_step = create_specs(Config.model_validate(BASE))
    selected = {step: spec.modules() for step, spec in by_step.items()}
    assert (selected["fingerprint"], selected["explain"]) == ((), ())
    assert all(name.startswith("modelyard.components.") for modules in selected.values() for name in modules)


# By key: sections that replace those of BASE before and after the change, and the first cached step that runs
# again. The steps after it get new artifacts and run again too; fingerprint, deploy and explain always run.
CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any], str | None]] = {}


def changes(first: str | None, section: str, before: dict[str, Any] | None = None, **after: Any) -> None:
    """Add keys of a section, each with its changed value."""
    values = BASE.get(section, {}) if before is None else before
    for key, value in after.items():
        path = ".".join((section, *key.split("__")))
        outer, _, inner = key.partition("__")
        changed = {**values.get(outer, {}), inner: value} if inner else value
        CHANGES[path] = ({section: values}, {section: {**values, outer: changed}}, first)


changes("ingest", "data", source="/b.zip", sha256="0" * 64, channels=1, max_bytes=7, timeout=7.0)
changes("ingest", "data", resize__height=9, resize__width=9, resize__policy="pad")
changes("ingest", "data", index="labels.csv", max_bad=0.1)
changes("ingest", "data", {"kind": "npz", "source": "/a.zip"}, kind="cifar10", classes=["a", "b"])
changes("ingest", "data", NPZ, endpoint="http://a:1", user_project="payer")
changes("preprocess", "data", validation=0.3, test=0.3, normalize="none", scale=7.0, fail_on=["leakage"])
changes("train", "model", {}, kernel_regularizer="L2", bias_regularizer={"name": "L1", "l1": 0.7})
changes("train", "model", {}, logits=True, filters=[7], kernel=7, dense=[7], dropout=0.7)
changes("train", "model", CUSTOM_MODEL["model"], build="a:c", code="copy", arguments={"width": 2})
changes("train", "training", epochs=7, batch_size=7, optimizer="sgd", optimizer_settings={"beta_1": 0.7})
changes("train", "training", early_stopping__monitor="val_accuracy", early_stopping__patience=7)
changes("train", "training", early_stopping__min_delta=0.7)
changes(
    "train", "training", loss="CategoricalCrossentropy", seed=7, steps_per_execution=7, checkpoint_every=7.0
)
changes("train", "training", early_stopping__mode="min", early_stopping__baseline=0.7)
changes("train", "training", early_stopping__start_from_epoch=7, early_stopping__restore_best_weights=False)
changes("train", "training", metrics=["AUC"], callbacks=["ReduceLROnPlateau"])
changes("train", "training", precision="mixed_bfloat16", class_weights="balanced")
changes("train", "store", {"url": "gs://a/b"}, url="gs://a/c", endpoint="http://a:1", user_project="payer")
changes("evaluate", "gate", minimum={"accuracy": 0.7}, maximum={"log_loss": 0.7})
changes("evaluate", "gate", comparison="superiority", margin={"accuracy": 0.7})
CHANGES["problem"] = (
    {"data": NPZ, "training": {}},
    {"problem": "regression", "data": NPZ, "training": {}},
    "ingest",
)
changes(None, "serving", host="a", port=7, threads=7, max_body_bytes=7, max_batch=7, max_queue=7)
changes(None, "serving", body_timeout=7.0, drain_timeout=7.0, linger=7.0, poll_interval=7.0)
changes(None, "serving", max_pixels=7, request_timeout=7.0, access_log=True, token_file="tokens")  # noqa: S106
changes(None, "serving", {"tls_cert": "a", "tls_key": "a"}, tls_cert="b", tls_key="b")
changes(None, "rollout", golden_tolerance=0.7, canary_share=0.3, bake_seconds=7.0, min_requests=7)
changes(None, "rollout", max_error_rate=0.7, max_latency_ratio=7.0, latency_margin=7.0, max_restarts=7)
changes(None, "rollout", ready_timeout=7.0, store_timeout=7.0)
changes(None, "retention", versions=7, runs=7, younger_than="7d")
changes(
    None, "schedule", cron="0 4 * * 1", paused=True, concurrency=7, catch_up=True, time_zone="Europe/Berlin"
)
changes(None, "schedule", skip_unchanged=True, force_after="7d")
CHANGES["name"] = ({}, {"name": "other"}, "evaluate")


def test_champion_leakage_and_named_slices_are_passed_to_their_steps() -> None:
    gate = {"minimum": {"recall": {"b": 0.5}}, "margin": {"recall": {"a": 0.1, "b": 0.1}}}
    data = {**IMAGES, "fail_on": ["leakage", "champion_leakage"]}
    inputs = step_inputs({"gate": gate, "data": data, "training": {"class_weights": {"b": 2, "a": 1}}})
    assert inputs["preprocess"]["weighted_slices"] == ["a", "b"]
    assert inputs["preprocess"]["named_slices"] == ["a", "b"]
    assert inputs["preprocess"]["preparation"]["fail_on"] == ["leakage"]
    assert inputs["evaluate"]["fail_on_champion_leakage"]


SAME_RUN = {
    "name",
    "model.code",
    "training.checkpoint_every",
    "store.url",
    "store.endpoint",
    "store.user_project",
}
"""Keys that are in the specs of cached steps but not in the recipe, because they change no result."""


@pytest.fixture(autouse=True)
def _code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "_cached_code_sha256", lambda *_: "the same code")
    monkeypatch.setattr("modelyard.components.serve.access.Access", lambda _: None)  # opens its files
    monkeypatch.chdir(tmp_path)
    for name in ("networks", "copy"):
        Path(name).mkdir()
        Path(name, "a.py").write_text("")


def step_inputs(changed: dict[str, Any]) -> dict[str, Any]:
    """Return the spec of each step as JSON."""
    by_step = create_specs(Config.model_validate({**BASE, **changed}))
    return {step: json.loads(spec.to_json()) for step, spec in by_step.items()}


def leaves(kind: type[BaseModel]) -> set[str]:
    return {".".join(map(str, keys)) for keys, field in iterate_keys(kind) if not section_class(field)}


def test_the_table_has_every_key() -> None:
    assert set(CHANGES) == leaves(Config)


@pytest.mark.parametrize("key", CHANGES)
def test_a_changed_key_invalidates_the_steps_that_depend_on_it(key: str) -> None:
    before, after, first = CHANGES[key]
    old, new = step_inputs(before), step_inputs(after)
    invalidated = [step for step in STEPS if STEPS[step].cached and old[step] != new[step]]
    assert invalidated[:1] == [first] * bool(first)


def test_keys_outside_the_recipe_do_not_change_the_run() -> None:
    def recipe(changed: dict[str, Any]) -> Any:
        return step_inputs(changed)["deploy"]["recipe_sha256"]

    same = {key for key, (before, after, _) in CHANGES.items() if recipe(before) == recipe(after)}
    # keys of ingest are in the fingerprint of the data
    source = {key for key, (_, _, first) in CHANGES.items() if first == "ingest"}
    assert same == SAME_RUN | source | {key for key, (_, _, first) in CHANGES.items() if first is None}
