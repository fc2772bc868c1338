"""What a run hands to the comparison with its plan: the plan's key from before it, and what train tells."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components.artifacts import History, write
from modelyard.components.store import staging
from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.config.config import Config, load
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.planning.residuals import Residual, keep, key
from modelyard.pipelines.runners.local import LocalRun
from modelyard.pipelines.runners.pods import launcher
from modelyard.pipelines.runners.pods import run as pod_run
from modelyard.pipelines.runners.pods.run import PodRun
from tests.unit.plan.ended import PARTS, prediction

STARTED = "00:00:00.0 - INFO - Executing task 'train'\n"
ENDED = "00:00:01.0 - INFO - Task 'train' finished with status SUCCESS\n"
HISTORY = History(
    metrics={},
    epochs=3,
    stopped_early=True,
    seconds=1.0,
    samples_per_second=1.0,
    parameters=1,
    packages={},
)


class Trained(LocalRun):
    """A run whose steps are a training that takes no time; meanwhile somebody edits its code."""

    def _execute(self) -> None:
        self.log.write(STARTED + ENDED)
        folder = self.folder / "artifacts" / "pipeline" / "train" / "history"
        folder.mkdir(parents=True)
        write(folder / "history.json", HISTORY)
        (Path(str(self.config.model.code)) / "small.py").write_text("another = 1")

    def _result(self) -> dict[str, Any]:
        return {}


@pytest.fixture
def config(tmp_path: Path) -> Config:
    """A configuration with code of its own."""
    code = tmp_path / "code"
    code.mkdir()
    (code / "small.py").write_text("def build(input_shape, classes): ...")
    file = tmp_path / "own.yaml"
    model = f"{{build: 'small:build', code: {code}}}"
    file.write_text(f"name: own\ndata: {{kind: digits}}\nmodel: {model}\n")
    return load(file)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "runs" / "one"
    for part in ("logs", "artifacts"):
        (made / part).mkdir(parents=True)
    return made


def test_a_run_belongs_to_the_plan_of_what_it_began_with(
    tmp_path: Path, config: Config, folder: Path
) -> None:
    mine = key(config, LOCAL)
    keep(tmp_path, mine, prediction())
    assert Trained(config, folder)().state == "succeeded"
    found = Residual.model_validate_json((folder / "plan.json").read_bytes())
    assert (found.key, found.epochs) == (mine, 3)
    assert found.planned == pytest.approx(50.0 * PARTS.seconds(3) / PARTS.seconds())
    assert key(config, LOCAL) != mine


def test_a_run_that_succeeded_stays_so_where_its_plan_cannot_be_kept(
    config: Config, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "plan.json").mkdir()
    assert Trained(config, folder)().state == "succeeded"
    assert "is not recorded" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "epochs"), [("", 3), (f"    train {launcher.AGAIN}; 1 are left.\n", None)])
def test_a_training_in_pods_tells_of_its_only_attempt(
    monkeypatch: pytest.MonkeyPatch, folder: Path, said: str, epochs: int | None
) -> None:
    def fetch(uri: str, path: Path, endpoint: str | None) -> None:
        assert uri == "gs://modelyard/runs/one/pipeline/train/history"
        assert endpoint == "http://127.0.0.1:30443"
        path.mkdir(parents=True)
        write(path / "history.json", HISTORY)

    monkeypatch.setattr(pod_run, "connect", lambda _: None)
    monkeypatch.setattr(staging, "fetch", fetch)
    run = PodRun(load(), folder, load_environment("kind"))
    (folder / "artifacts" / "pipeline" / "train").mkdir(parents=True)
    run.log.write(STARTED + said + ENDED)
    found = run._history()
    assert (found.epochs if found else None) == epochs
