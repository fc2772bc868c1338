"""The steps of a run on Kubeflow Pipelines, as its Workflow says how they fare."""

from datetime import UTC, datetime

from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.pipelines.runners.runs import State, Step
from modelyard.pipelines.train_to_serve import STEPS

STATES: dict[str, State] = {
    "Pending": "running",
    "Running": "running",
    "Succeeded": "succeeded",
    "Failed": "failed",
    "Error": "failed",
}


def steps(workflow: Workflow, ended: bool) -> tuple[Step, ...]:
    """Return every step as it is.

    Args:
        workflow: of the run.
        ended: whether nothing of it goes on: what has not begun is skipped then.
    """
    return tuple(_step(name, workflow, ended) for name in STEPS)


def _step(name: str, workflow: Workflow, ended: bool) -> Step:
    pods = [one for one in workflow.pods() if one.step == name]
    own = [one for one in pods if not one.driver]
    if not pods:
        return Step(name=name, state="skipped" if ended else "waiting", seconds=0.0, cached=False)
    cached = workflow.cached(name)
    last = (own or pods)[-1]
    state = STATES.get(last.phase, "skipped")
    if state == "succeeded" and last.driver and not cached:  # its own pod comes next
        state = "skipped" if ended else "running"
    if state == "running" and ended:
        state = "failed"
    return Step(name=name, state=state, seconds=_seconds(pods, state == "running"), cached=cached)


def _seconds(pods: list[PodNode], running: bool) -> float:
    """Return the time from a step's first pod to the end of its last, its driver's included."""
    begun = [_time(one.started) for one in pods if one.started]
    if not begun:
        return 0.0
    ended = [_time(one.finished) for one in pods if one.finished]
    last = datetime.now(UTC) if running or not pods[-1].finished else max(ended)
    return round(max(0.0, (last - min(begun)).total_seconds()), 3)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
