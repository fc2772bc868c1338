"""The commands `runs …` for runs of this machine."""

import os
import re
import signal
import subprocess
import sys
import time
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from rich.console import Console

from modelyard.components import lifeline
from modelyard.components.artifacts import Metric, PairedMetrics
from modelyard.components.errors import ConfigError
from modelyard.components.events import Epoch, Resumed, StepChange, append
from modelyard.pipelines.api import open_run
from modelyard.pipelines.cli.progress import (
    build_serve_command,
    build_steps_table,
    format_event,
    show_summary,
)
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners import run_folder
from modelyard.pipelines.runners.base import EvaluationSummary, RunSummary, StepStatus
from modelyard.pipelines.runners.local.runner import process_start_time
from tests.run_folders import create_ended_run, create_run

FIRST, SECOND = "20260101-000000-aaaa", "20260102-000000-bbbb"


@pytest.fixture
def home(tmp_path):
    return tmp_path / ".modelyard"


def metrics(accuracy):
    metric = Metric(value=accuracy, low=0.8, high=1.0, direction="higher")
    return EvaluationSummary(
        problem="classification", primary="accuracy", values={"accuracy": metric}, examples=10
    )


def test_runs_list_shows_results_newest_first(home, modelyard):
    create_ended_run(home, FIRST, decision="promote", reason="r", evaluation=metrics(0.9), version=3)
    create_run(home, SECOND, "name=cats")
    second, first = modelyard.json("runs", "list")
    assert (first["name"], first["data"], first["decision"], first["version"]) == (
        FIRST,
        "digits",
        "promote",
        3,
    )
    assert (first["metric"], first["value"], first["state"]) == ("accuracy", 0.9, "succeeded")
    assert (second["name"], second["model"], second["state"]) == (SECOND, "cats", "failed")
    assert [run["name"] for run in modelyard.json("runs", "list", "--model", "digits")] == [FIRST]
    assert [run["name"] for run in modelyard.json("runs", "list", "--limit", "1")] == [SECOND]
    text = modelyard("runs", "list").out
    assert "accuracy 0.9000" in text
    assert FIRST in text


def test_a_run_with_an_unknown_record_format_is_unreadable(home, modelyard):
    (create_ended_run(home, FIRST) / "run.json").write_text('{"run": "x"}')
    create_ended_run(home, SECOND)
    assert [run["state"] for run in modelyard.json("runs", "list")] == ["succeeded", "unreadable"]
    assert "run.json" in modelyard("explain", FIRST).err


def test_the_summary_shows_candidate_and_champion():
    def values(accuracy):
        return {"accuracy": Metric(value=accuracy, low=accuracy - 0.1, high=1.0, direction="higher")}

    paired = PairedMetrics(examples=90, candidate=values(0.85), champion=values(0.95))
    evaluation = metrics(0.8).model_copy(
        update={"examples": 100, "compared_with": 3, "same_examples": paired, "baseline": {"accuracy": 0.1}}
    )
    about = {"run": FIRST, "model": "digits", "state": "succeeded", "seconds": 1.0, "store": "x"}
    summary = RunSummary(
        **about, steps=(), decision="hold", reason="r", notes=("a", "b"), evaluation=evaluation
    )
    run = SimpleNamespace(environment=Environment(kind="local"), config=dict)
    show_summary(summary, run, Console(file=(shown := StringIO()), width=80))
    lines = [" ".join(line.split()) for line in shown.getvalue().splitlines()]
    assert "metrics 90 of 100 test examples candidate (95 % interval) version 3 baseline" in lines
    assert "accuracy 0.8500 (0.7500 to 1.0000) 0.9500 0.1000" in lines
    assert {"note a", "b"} <= set(lines)


def test_the_latest_run_has_the_latest_start_time(home, modelyard):
    """The name of its folder has the local time and is ignored."""
    create_run(home, FIRST, started="2026-10-25T01:10:00+00:00")
    create_run(home, SECOND, started="2026-10-25T00:50:00+00:00")
    assert [run["name"] for run in modelyard.json("runs", "list")] == [FIRST, SECOND]
    assert modelyard("explain").out.startswith(f"The run {FIRST}")


def test_runs_show_prints_the_steps_of_a_running_run(home, modelyard):
    run = create_run(home, FIRST)
    events = run / run_folder.EVENTS
    append(events, StepChange(step="ingest", state="succeeded", cached=True, at=time.time()))
    append(events, StepChange(step="train", state="running", at=time.time()))
    with lifeline.hold(run / "lifeline"):
        shown = modelyard.json("runs", "show", FIRST)
    assert shown["state"] == "running"
    steps = {step["name"]: step for step in shown["steps"]}
    assert steps["ingest"]["cached"]
    assert (steps["train"]["state"], steps["deploy"]["state"]) == ("running", "waiting")
    killed = {step["name"]: step["state"] for step in modelyard.json("runs", "show", FIRST)["steps"]}
    assert (killed["train"], killed["deploy"]) == ("failed", "skipped")
    text = modelyard("runs", "show", FIRST).out
    assert re.search(r"^environment +local, on this machine *$", text, re.M)


def test_the_serve_command_includes_the_keys_of_the_store():
    store = {"url": "gs://bucket/models", "endpoint": None, "user_project": "payer"}
    command = "MODELYARD_STORE__USER_PROJECT=payer modelyard serve pets --store gs://bucket/models"
    assert build_serve_command("pets", store) == command


def test_runs_compare_shows_differences_and_metrics(home, modelyard):
    create_ended_run(home, FIRST, decision="promote", reason="r", evaluation=metrics(0.9))
    create_ended_run(home, SECOND, "training.epochs=3", decision="hold", reason="r", evaluation=metrics(0.8))
    comparison = modelyard.json("runs", "compare", FIRST, SECOND)
    assert [run["name"] for run in comparison["runs"]] == [FIRST, SECOND]
    assert comparison["differences"] == [{"key": "training.epochs", "before": 20, "after": 3}]
    assert comparison["metrics"] == [{"key": "accuracy", "before": 0.9, "after": 0.8}]
    text = modelyard("runs", "compare", FIRST, SECOND).out
    assert re.search(r"^started +2026-01-01 00:00:00 UTC +2026-01-02 00:00:00 UTC *$", text, re.M)
    assert re.search(r"^training.epochs +20 +3 *$", text, re.M)
    third = "20260103-000000-aaaa"
    create_ended_run(home, third, "gate=null", decision="promote", reason="r", evaluation=metrics(0.9))
    keys = [line.split()[0] for line in modelyard("runs", "compare", FIRST, third).out.splitlines()]
    assert [key for key in keys if key.startswith("gate")] == ["gate.comparison", "gate.minimum.accuracy"]
    assert (
        modelyard.json("runs", "compare", FIRST, third)["results"][1]["before"] == "2026-01-01T00:00:00+00:00"
    )
    assert modelyard("runs", "compare", FIRST, "20260103-000000-cccc").code == 7


def test_runs_logs_prints_the_lines_of_the_steps(home, modelyard):
    run = create_ended_run(home, FIRST)
    for step in ("train", "ingest"):
        (run / "logs" / f"{step}.log").write_text(f"[KFP Executor x]: {step}\n{step}ing\n")
    assert modelyard("runs", "logs", FIRST).out == "ingest:\ningesting\ntrain:\ntraining\n"
    assert modelyard("runs", "logs", FIRST, "train").out == "training\n"
    assert "[KFP" in modelyard("runs", "logs", FIRST, "train", "--all").out
    assert modelyard("runs", "logs", FIRST, "nope").code == 2
    for steps in ("train", ["nope"]):
        with pytest.raises(ConfigError):
            open_run(FIRST).logs(steps)


def test_rejected_commands_give_the_reason(home, modelyard):
    create_ended_run(home, FIRST)
    for command in ("cancel", "retry"):
        result = modelyard("runs", command, FIRST)
        assert (result.code, "succeeded" in result.err) == (2, True)
    run = create_run(home, SECOND, host="other-host")
    with lifeline.hold(run / "lifeline"):
        result = modelyard("runs", "cancel", SECOND)
    assert result.code == 2
    assert f"`modelyard runs cancel {SECOND}` on other-host" in result.err
    assert modelyard("runs", "show", "20260101-000000-aaaa-digits").code == 7


class Cluster:
    """A cluster with a pod of each of two runs."""

    def __init__(self) -> None:
        names = (FIRST, SECOND)
        self.pods = {run: {"metadata": {"name": run, "labels": {"modelyard.dev/run": run}}} for run in names}

    def list_objects(self, _kind, labels):
        return [pod for run, pod in self.pods.items() if labels.endswith(f"modelyard.dev/run={run}")]

    def get(self, _kind, name):
        return self.pods.get(name)

    def delete(self, _kind, observed):
        return self.pods.pop(observed["metadata"]["name"]) is observed


def test_cancel_removes_the_pods_of_a_killed_run(home, modelyard, monkeypatch):
    cluster = Cluster()
    monkeypatch.setattr("modelyard.components.kubernetes.cluster.connect", lambda _: cluster)
    environment = Environment(kind="kubernetes", store="gs://b/models", pipeline_root="gs://b/runs")
    run = create_run(home, FIRST, runner="pods", environment="kind", settings=environment)
    assert modelyard.json("runs", "list")[0]["runner"] == "pods"
    with lifeline.hold(run / "lifeline"):
        modelyard("runs", "logs", FIRST)
    assert modelyard("runs", "cancel", FIRST).code == 0
    assert list(cluster.pods) == [SECOND]
    assert modelyard("runs", "cancel", FIRST).code == 2


PARENT = """
import sys, time
from pathlib import Path
from modelyard.components import lifeline
with lifeline.hold(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_cancel_does_not_end_other_processes(home, modelyard):
    """The run has ended and the ID of its parent process was reused."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        try:
            run = create_run(home, FIRST, pid=process.pid, pid_start_time=process_start_time(process.pid))
            assert modelyard("runs", "cancel", FIRST).code == 2
            (run / "lifeline").unlink(missing_ok=True)
            run = create_run(home, SECOND, pid=process.pid, pid_start_time="another")
            with lifeline.hold(run / "lifeline"):
                modelyard("runs", "cancel", SECOND)
            assert process.poll() is None
        finally:
            process.kill()


def test_a_running_run_is_cancelled(home, modelyard):
    run = create_run(home, FIRST)
    command = [sys.executable, "-c", PARENT, str(run / "lifeline")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        parent.stdout.readline()
        (run / run_folder.START).unlink()
        (run / "logs").rmdir()
        create_run(home, FIRST, pid=parent.pid, pid_start_time=process_start_time(parent.pid))
        assert modelyard("runs", "cancel", FIRST).code == 0
        assert parent.wait(120) == -signal.SIGTERM
    assert modelyard.json("runs", "show", FIRST)["state"] == "cancelled"


@pytest.mark.parametrize(
    ("event", "parts"),
    [
        (StepChange(step="train", state="running", at=1.0), ("train", "started")),
        (StepChange(step="train", state="succeeded", seconds=2.0, at=1.0), ("succeeded", "2.0 s")),
        (StepChange(step="train", state="succeeded", cached=True, at=1.0), ("cached",)),
        (
            Epoch(step="train", epoch=2, epochs=9, metrics={"loss": 0.25}, seconds=1.0),
            ("epoch 2 of 9", "loss 0.2500"),
        ),
        (Resumed(step="train", epoch=4, epochs=9), ("epoch 4 of 9",)),
    ],
)
def test_events_are_printed_as_single_lines(event, parts):
    line = format_event(event)
    assert all(part in line for part in parts)
    assert "\n" not in line


def test_the_table_shows_the_checkpoint_and_the_last_message_of_a_step():
    epochs = [Epoch(step="train", epoch=epoch, epochs=9, metrics={}, seconds=1.0) for epoch in (5, 6)]
    resumed = Resumed(step="train", epoch=4, epochs=9)
    for events, lines in (
        ([], ["reading"]),
        ([resumed], ["epoch 4 of 9"]),
        ([resumed, *epochs], ["epoch 4 of 9", "epoch 6 of 9"]),
    ):
        steps = (StepStatus(name="train", state="running", seconds=1.0, cached=False),)
        run = SimpleNamespace(steps=lambda: steps, events=lambda: events, last_line="reading")  # noqa: B023
        console = Console(file=StringIO(), width=100)
        console.print(build_steps_table(run))
        shown = console.file.getvalue().splitlines()[1:]
        assert [expected in line for expected, line in zip(lines, shown, strict=True)] == [True] * len(lines)


def test_incomplete_events_are_not_read(tmp_path: Path):
    from modelyard.components.events import EventFile, emit, parse

    path = tmp_path / "events.jsonl"
    reader = EventFile(path)
    assert reader.read() == []
    os.environ["MODELYARD_EVENTS"] = str(path)
    try:
        emit(Resumed(step="train", epoch=1, epochs=2))
    finally:
        del os.environ["MODELYARD_EVENTS"]
    with path.open("a") as file:
        file.write('{"event":"resumed","step":"train"')
    assert len(reader.read()) == 1
    with path.open("a") as file:
        file.write(',"epoch":2,"epochs":2}\nnoise\n')
    assert [event.epoch for event in reader.read()] == [1, 2]
    assert parse('{"event":"none"}') is None


def test_a_run_with_an_unknown_start_format_is_skipped_with_a_warning(home, modelyard):
    (create_ended_run(home, FIRST) / run_folder.START).write_text('{"key of another version": 1}')
    create_run(home, SECOND)
    assert [run["name"] for run in modelyard.json("runs", "list")] == [SECOND]
    assert f"the run {FIRST} is not shown" in modelyard("runs", "list").err
    assert modelyard("explain").code == 0
