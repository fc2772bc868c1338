"""Runs that ended, each with the plan before it, over real folders."""

from pathlib import Path
from typing import Any

from modelyard.components.artifacts import History, write
from modelyard.pipelines.compile.compiler import LOCAL
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning import comparison
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown
from modelyard.pipelines.planning.residuals import Prediction, Residual, machine
from modelyard.pipelines.planning.time import Duration
from modelyard.pipelines.runners.runs import MetricsSummary, RunSummary, Step, finish

HERE, ROWS = machine(LOCAL), 369
PARTS = Duration(
    once=10.0,
    epoch=2.0,
    validation=0.5,
    epochs=20,
    least_epochs=20,
    low=0.9,
    high=1.1,
    busy=1.0,
    around=0.0,
    start=6.0,
    compile=2.0,
    export=2.0,
    step=0.01,
    input_share=0.0,
    overhead=None,
)


def prediction(train: float | None = 50.0, where: str = HERE, **said: Any) -> Prediction:
    found = unknown("no probe") if train is None else Quantity(value=train, low=40.0, high=60.0)
    return Prediction(
        created="2026-11-26T10:00:00+00:00",
        machine=where,
        rows={"test": ROWS},
        train=found,
        whole=exactly(train) if train else found,
        money=unknown("no price"),
        parts=PARTS if train else None,
        refusals=(),
        **said,
    )


def run(
    home: Path,
    config: Config,
    name: str,
    seconds: float,
    epochs: int = 20,
    cached: bool = False,
    rows: int = ROWS,
    resumed_after: int = 0,
    told: bool = True,
    environment: Environment = LOCAL,
) -> Path:
    """Leave what a run leaves, and record it; `told` says whether train tells how it went."""
    folder = home / "runs" / name
    history, model = (folder / "artifacts" / "pipeline" / "train" / name for name in ("history", "model"))
    trained = History(
        metrics={},
        epochs=epochs,
        stopped_early=False,
        resumed_after=resumed_after,
        seconds=seconds,
        samples_per_second=1.0,
        parameters=1,
        packages={},
    )
    if not cached:
        history.mkdir(parents=True)
        model.mkdir()
        (model / "model.onnx").write_bytes(bytes(900_000))
        write(history / "history.json", trained)
    folder.mkdir(parents=True, exist_ok=True)
    steps = (
        Step(name="ingest", state="succeeded", seconds=0.0, cached=True),
        Step(name="train", state="succeeded", seconds=seconds, cached=cached),
        Step(name="evaluate", state="succeeded", seconds=3.0, cached=cached),
    )
    report = folder / "report.html"
    report.write_text("<main>\n</main>\n")
    summary = RunSummary(
        run=name,
        model="digits",
        state="succeeded",
        metrics=MetricsSummary(accuracy=0.9, accuracy_interval=(0.8, 1.0), rows=rows, gain=None),
        steps=steps,
        seconds=seconds + 5,
        store="",
        report=str(report),
    )
    finish(folder, summary)
    tells = trained if told and not cached else None
    comparison.keep(folder, comparison.identity(config, environment), environment, summary, tells)
    return folder


def recorded(folder: Path) -> Residual:
    return Residual.model_validate_json((folder / "plan.json").read_bytes())
