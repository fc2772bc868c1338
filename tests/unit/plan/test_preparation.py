"""Preparing the data for a plan is no run, however it ends."""

from pathlib import Path

import pytest

from modelyard.components.errors import DataError, NotFoundError
from modelyard.pipelines.config.config import load
from modelyard.pipelines.planning.preparation import prepare
from modelyard.pipelines.runners import explain_run, runs


def test_one_that_fails_is_no_run_that_was_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    with pytest.raises(DataError):
        prepare(load(None, [f"data={{kind: npz, source: {tmp_path}/none.npz}}"]))
    with pytest.raises(NotFoundError):
        explain_run.explain_local(runs.home(), None)


def test_one_that_is_interrupted_is_none_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setenv("MODELYARD_HOME", str(tmp_path))
    monkeypatch.setattr("modelyard.pipelines.planning.preparation.data_fingerprint", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(load())
    with pytest.raises(NotFoundError):
        explain_run.explain_local(runs.home(), None)
