"""Failures of steps in a local run: summary, record and `explain`."""

import json
from typing import Any

import pytest

from tests.failures import FAILURES, Case, serve_folder, write_code

STORE = Case(("store.url={folder}/file/models",), 7, "StoreError", "fingerprint", "file")
CASES = {**FAILURES, "store": STORE}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with serve_folder(tmp_path_factory.mktemp("data")) as url:
        yield url


@pytest.mark.parametrize(
    "name",
    # slow; test_readme.py tests an exception in train, tests/unit/pipelines/test_local.py small steps
    [
        pytest.param(name, marks=[pytest.mark.soak] if case.step == "train" else [])
        for name, case in CASES.items()
    ],
)
def test_a_failure_is_the_same_in_the_summary_and_in_explain(champion: Any, url: str, name: str) -> None:
    case = CASES[name]
    write_code(champion.folder)
    (champion.folder / "file").touch()
    before = champion.state()
    settings = (
        setting.replace("{folder}", str(champion.folder)).format(url=url) for setting in case.settings
    )
    summary = champion.json("run", settings=tuple(settings), code=case.exit_code)
    failure = summary["failure"]
    assert (failure["kind"], failure["step"]) == (case.kind, case.step), failure
    assert case.message in failure["message"]
    explanation = champion.json("explain", summary["run"])
    assert (explanation["kind"], explanation["step"], explanation["state"]) == (
        case.kind,
        case.step,
        "failed",
    )
    assert failure["message"] in explanation["text"]
    assert champion.state() == before
    if name != "store":
        record = champion.folder / f".modelyard/models/digits/runs/{summary['run']}.end.json"
        end = json.loads(record.read_text())
        assert {key: end[key] for key in explanation.keys() - {"run"}} == {
            key: explanation[key] for key in explanation.keys() - {"run"}
        }
