"""The commands `models …` and `rollback`."""

import json
import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from modelyard.components.errors import DamagedError
from modelyard.pipelines.cli.options import format_cell
from modelyard.pipelines.serving import platforms
from tests.unit.pipelines.conftest import SIGNATURE
from tests.versions import publish


@pytest.mark.usefixtures("store")
def test_models_list_shows_models_and_their_versions(modelyard):
    rows = modelyard.json("models", "list")
    expected = {"model": "tiny", "champion": 1, "metric": "accuracy", "value": 0.9, "run": "", "versions": 2}
    assert rows == [{**expected, "latest": 2, "served": [], "error": None}]
    text = modelyard("models", "list").out
    assert re.search(r"^tiny +1 +accuracy +0.9000 +2 +2", text, re.M)
    assert [line for line in text.splitlines() if line != line.rstrip()] == []
    versions = modelyard.json("models", "list", "tiny")
    assert [(row["version"], row["champion"], row["fingerprint"]) for row in versions] == [
        (1, True, "first"),
        (2, False, "second"),
    ]


def test_numbers_in_tables_are_formatted_as_in_reports():
    assert [format_cell(value) for value in (0.9, 51.4567, 3, True, None)] == [
        "0.9000",
        "51.46",
        "3",
        "true",
        "–",
    ]


def test_the_list_of_an_empty_store_names_modelyard_run(modelyard):
    assert "`modelyard run`" in modelyard("models", "list").out
    assert modelyard.json("models", "list") == []


@pytest.mark.usefixtures("store")
def test_models_show_describes_a_version(modelyard):
    text = modelyard("models", "show", "tiny").out
    assert "1 of tiny, the champion" in text
    assert "uint8 2 x 2" in text
    shown = modelyard.json("models", "show", "tiny", 2)
    assert (shown["version"], shown["champion"], shown["run"]) == (2, False, "second")
    missing = modelyard("models", "show", "tiny", 3)
    assert missing.code == 7
    assert "tiny has no version 3" in missing.err
    assert modelyard("models", "show", "tiny", 0).code == 2


def test_promote_and_rollback_are_recorded_in_the_history(modelyard, store):
    assert "Version 2 is the champion" in modelyard("models", "promote", "tiny", 2, "--reason", "why not").out
    rollback = modelyard.json("rollback", "tiny")
    assert rollback["version"] == store.champion("tiny").version == 1
    entries = modelyard.json("models", "history", "tiny")
    assert [(entry["action"], entry["version"]) for entry in entries] == [
        ("promote", 1),
        ("promote", 2),
        ("rollback", 1),
    ]
    assert entries[1]["reason"] == "why not"
    assert "why not" in modelyard("models", "history", "tiny").out


def test_the_versions_served_on_a_cluster_are_those_of_the_last_rollout(
    modelyard, store, tmp_path, monkeypatch
):
    (tmp_path / "cluster.yaml").write_text(
        "kind: kubernetes\nstore: gs://b/models\npipeline_root: gs://b/runs\n"
    )
    monkeypatch.setattr("modelyard.pipelines.cli.models.open_store", lambda *_: store)
    store.record_served("tiny", "uid", "modelyard-serving", [2])
    options = ("-e", "cluster.yaml", "--output", "json")
    (row,) = json.loads(modelyard("models", "list", *options).out)
    assert (row["champion"], row["served"]) == (1, [2])
    assert [row["served"] for row in json.loads(modelyard("models", "list", "tiny", *options).out)] == [
        False,
        True,
    ]
    assert json.loads(modelyard("models", "show", "tiny", 2, *options).out)["served"] == ["modelyard-serving"]
    assert json.loads(modelyard("models", "show", "tiny", *options).out)["served"] == []


@pytest.fixture
def damaged(store):
    """Damage a file of version 2 and return its path."""
    file = Path(store.url, "tiny", "versions", "000002", "model.onnx")
    file.chmod(0o644)
    file.write_bytes(file.read_bytes() + b"x")
    return file


@pytest.mark.usefixtures("damaged")
@pytest.mark.parametrize(
    "command",
    [("models", "promote", "tiny", 2), ("rollback", "tiny", "--to", 2), ("deploy", "tiny", 2, "-e", "local")],
)
def test_promotion_of_a_damaged_version_is_an_error(modelyard, store, command):
    result = modelyard(*command, "--output", "json")
    error = json.loads(result.out)["error"]
    assert (result.code, error["kind"]) == (6, "DeployError")
    assert "model.onnx of version 2" in error["message"]
    assert store.champion("tiny").version == 1


@pytest.mark.usefixtures("damaged")
def test_rollout_status_shows_a_damaged_champion(modelyard, store):
    store.promote("tiny", 2, reason="without verification", by="test")
    status = modelyard.json("rollout", "status", "tiny")
    assert (status["champion"], status["stable"]) == (2, None)
    (unreachable, damaged) = status["errors"]
    assert "http://127.0.0.1:1" in unreachable
    assert "model.onnx of version 2" in damaged


def test_rollback_to_an_unloadable_version_is_an_error(modelyard, store, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"nonsense")
    files = {name: tmp_path / name for name in ("model.onnx", "golden.json")}
    assert publish(store, "tiny", files, SIGNATURE) == 3
    result = modelyard("rollback", "tiny", "--to", 3)
    assert result.code == 6
    assert "Version 3 of tiny cannot be loaded by ONNX Runtime" in result.err
    assert "Version 3 was not promoted, and the champion is version 1 as before." in result.err
    assert store.champion("tiny").version == 1


def test_models_list_shows_a_damaged_manifest(modelyard, damaged):
    (damaged.parent / "manifest.json").chmod(0o644)
    (damaged.parent / "manifest.json").write_text("{")
    first, second = modelyard.json("models", "list", "tiny")
    assert (first["error"], second["version"]) == (None, 2)
    assert "manifest.json is damaged" in second["error"]
    assert modelyard("models", "promote", "tiny", 2).code == 6


def test_the_history_fits_into_80_columns(modelyard, store, monkeypatch):
    reason = "balanced_accuracy is 0.9250 for the candidate and 0.9167 for version 1, the champion, " * 3
    store.promote("tiny", 2, reason=reason, by="pipeline")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    text = modelyard("models", "history", "tiny").out
    assert [line for line in text.splitlines() if len(line) > 80] == []
    assert set(reason.split()) <= set(text.split())
    assert len(text.splitlines()) < 15
    assert re.search(r"^2 +\d{4}-\d\d-\d\d \d\d:\d\d:\d\d +promote 1 -> 2 +pipeline +balanced", text, re.M)


def test_promotion_on_a_cluster_names_the_deploy_command(modelyard, store, tmp_path, monkeypatch):
    (tmp_path / "cluster.yaml").write_text(
        "kind: kubernetes\nstore: gs://b/models\npipeline_root: gs://b/runs\n"
    )
    calls = []

    def find_controller(_name, environment, by, **options):
        calls.append((environment, options["store"].url))
        promote = partial(store.promote, "tiny", by=by)
        return SimpleNamespace(models=store, promote=lambda pin, reason: promote(pin.version, reason=reason))

    monkeypatch.setattr(platforms, "find_controller", find_controller)
    output = modelyard("models", "promote", "tiny", 2, "-e", "cluster.yaml").out
    assert calls == [("local", "gs://b/models")], "a local server verifies the version"
    assert store.champion("tiny").version == 2
    assert "`modelyard deploy tiny 2 -e cluster.yaml`" in " ".join(output.split())
    assert modelyard("rollback", "tiny", "-e", "cluster.yaml", "--store", "gs://c/models").code == 2
    other_store = modelyard(
        "models", "promote", "tiny", 1, "-e", "cluster.yaml", "--store", "gs://c/models"
    ).out
    assert "modelyard deploy" not in other_store


def test_rollback_without_a_previous_champion_is_an_error(modelyard, store):
    result = modelyard("rollback", "tiny")
    assert result.code == 7
    assert "--to" in result.err
    assert store.champion("tiny").version == 1


def test_the_option_store_overrides_the_variable(modelyard, store, tmp_path, monkeypatch):
    monkeypatch.setenv("MODELYARD_STORE__URL", str(tmp_path / "other"))
    assert str(tmp_path / "other") in modelyard("models", "list").out
    assert "tiny" in modelyard("models", "list", "--store", store.url).out
    assert "tiny" in modelyard("models", "list", "--store", f"file://{store.url}").out


@pytest.fixture
def promoted(store):
    """Version 2 is the champion, after version 1."""
    store.promote("tiny", 2, reason="second promotion", by="test")
    return store


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("champion.json", ""),
        ("champion.json", '{"version": 2'),
        ("champion.json", None),
        ("history/000001.json", ""),
    ],
)
def test_commands_that_do_not_need_a_damaged_record_name_it_once(modelyard, promoted, tmp_path, name, data):
    path = Path(promoted.url, "tiny", name)
    path.unlink() if data is None else path.write_text(data)
    npy = tmp_path / "one.npy"
    np.save(npy, np.zeros((2, 2), np.uint8))
    for command, count in (
        (("models", "list", "tiny"), 1),
        (("models", "show", "tiny", 1), 1),
        (("models", "history", "tiny"), 1),
        (("rollout", "status", "tiny"), 1),
        (("doctor",), 1),
        (("models", "list"), int(name == "champion.json")),
        (("predict", "tiny", npy, "--version", 2), 0),
    ):
        result = modelyard(*command)
        assert result.code == int(command == ("doctor",)), result.err
        assert (result.out + result.err).count(str(path)) == count, command
    (row,) = modelyard.json("models", "list")
    assert (row["champion"], row["error"] is None) == ((2, True) if "history" in name else (None, False))
    assert len(modelyard.json("models", "history", "tiny")) == (1 if "history" in name else 2)


@pytest.mark.parametrize("missing", [False, True])
def test_promote_writes_a_damaged_pointer_again(modelyard, promoted, missing):
    def damage():
        path.unlink() if missing else path.write_bytes(b"")

    before = promoted.champion("tiny")
    path = Path(promoted.url, "tiny", "champion.json")
    damage()
    refused = modelyard("rollback", "tiny")
    assert refused.code == 7
    assert "`modelyard models promote" in refused.err
    assert path.exists() is not missing
    result = modelyard("models", "promote", "tiny", 2, "--output", "json")
    assert json.loads(result.out)["version"] == 2
    assert "champion.json" in result.err
    assert promoted.champion("tiny") == before
    promoted.rollback("tiny", reason="", by="test")
    damage()
    promoted.promote("tiny", 1, reason="", by="test")
    assert promoted.champion("tiny").previous is None, "as after the rollback"
    promoted.record_attempt("tiny", 2, reason="not promoted: slow", by="deploy")
    damage()
    promoted.promote("tiny", 2, reason="", by="test")
    assert [entry.attempt for entry in promoted.history("tiny")] == [False, False, False, True, False]
    assert (promoted.champion("tiny").previous, promoted.champion("tiny").history) == (1, 5)


@pytest.mark.parametrize(("data", "state"), [(None, "missing"), ('{"version"', "damaged")])
def test_promotion_of_another_version_keeps_the_history_of_a_damaged_pointer(
    modelyard, promoted, data, state
):
    path = Path(promoted.url, "tiny", "champion.json")
    path.unlink() if data is None else path.write_text(data)
    shown = modelyard.json("models", "show", "tiny")
    assert (shown["version"], shown["champion"], str(path) in shown["error"]) == (2, False, True)
    result = modelyard("models", "promote", "tiny", 1, "--reason", "rollback")
    assert (result.code, state in result.err) == (0, True)
    entries = [
        (entry["action"], entry["previous"], entry["version"], entry["attempt"], entry["reason"])
        for entry in modelyard.json("models", "history", "tiny")
    ]
    assert entries[1:] == [
        ("promote", 1, 2, False, "second promotion"),
        ("promote", 2, 1, False, "rollback"),
    ]
    assert modelyard.json("rollback", "tiny")["version"] == 2


def test_promote_writes_the_pointer_of_a_model_without_a_readable_history(modelyard, store):
    for path in Path(store.url, "tiny").rglob("history/*.json"):
        path.write_text("")
    Path(store.url, "tiny", "champion.json").write_text("")
    assert modelyard("models", "promote", "tiny", 2).code == 0
    assert (store.champion("tiny").version, store.champion("tiny").previous) == (2, None)


def test_a_champion_without_a_manifest_is_shown_and_not_promoted(modelyard, promoted):
    for version in (1, 2):
        Path(promoted.url, "tiny", f"versions/00000{version}/manifest.json").unlink()
        rows = modelyard.json("models", "list", "tiny")
        assert [(row["version"], row["champion"]) for row in rows] == [(1, False), (2, True)]
        assert [bool(row["error"]) for row in rows] == [True, version == 2]
        refused = modelyard("models", "promote", "tiny", version)
        assert refused.code == 7
        assert "no manifest.json" in refused.err
    (row,) = modelyard.json("models", "list")
    assert (row["champion"], row["latest"], row["versions"]) == (2, None, 0)
    assert "no manifest.json" in row["error"]
    assert modelyard("doctor").code == 1
    assert modelyard("models", "list", "other").code == 7


def test_an_unfinished_publication_is_not_shown(modelyard, store):
    store.reserve("tiny", "third")
    Path(store.url, "tiny/versions/000003/model.onnx").write_bytes(b"half")
    rows = modelyard.json("models", "list", "tiny")
    assert [(row["version"], row["error"]) for row in rows] == [(1, None), (2, None)]


@pytest.mark.parametrize("data", [None, ""])
def test_the_manifest_replaces_a_lost_reservation(store, data):
    path = Path(store.url, "tiny/versions/000002/run.json")
    path.unlink() if data is None else path.write_text(data)
    assert store.reserve("tiny", "second") == 2
    assert store.reserve("tiny", "third") == 3
    Path(store.url, "tiny/versions/000003/run.json").write_text("")
    assert store.reserve("tiny", "third") == 4, "the owner of 3 is unknown"


def test_a_damaged_record_of_served_versions_is_written_again(store):
    store.record_served("tiny", "uid", "modelyard-serving", [2])
    path = Path(store.url, "tiny/served/uid.json")
    path.write_text("")
    with pytest.raises(DamagedError, match=r"uid\.json"):
        store.served_versions("tiny")
    store.record_served("tiny", "uid", "modelyard-serving", [2])
    assert [record.versions for record in store.served_versions("tiny")] == [(2,)]
