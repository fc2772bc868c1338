"""What the steps of a run wrote: of a pod that runs from the cluster, else as it was kept."""

import time
from collections.abc import Iterator, Sequence

from modelyard.components.errors import ClusterError
from modelyard.components.explain.failure_reason import MAIN
from modelyard.components.explain.workflow import PodNode, Workflow
from modelyard.pipelines.runners.kfp.kept import LOG_PAUSE, Kept

PAUSE = 2.0
AT_WORK = ("Pending", "Running")


class Logs:
    """The logs of a run.

    Args:
        kept: the run's records.
    """

    def __init__(self, kept: Kept) -> None:
        self._kept = kept

    def now(self, steps: Sequence[str]) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield each step that has had a pod of its own, and the lines of its last one so far."""
        workflow = self._kept.workflow()
        for step in steps:
            if node := workflow.own(step):
                yield step, iter(self._kept.log(node))

    def following(self, steps: Sequence[str]) -> Iterator[tuple[str, Iterator[str]]]:
        """Yield the same as they come, until the run has ended or each step has; every attempt of a step."""
        told: set[str] = set()
        while True:
            workflow = self._kept.workflow()
            pods = [one for one in workflow.pods() if not one.driver and one.step in steps]
            for node in pods:
                if node.pod not in told and node.phase != "Pending":
                    told.add(node.pod)
                    yield node.step, self._follow(node)
            if workflow.ended or all(_over(workflow, step) for step in steps):
                return
            time.sleep(PAUSE)

    def _follow(self, node: PodNode) -> Iterator[str]:
        """Yield the lines of a pod until it ends."""
        lines = 0
        if self._kept.cluster and node.phase in AT_WORK:
            try:
                for line in self._kept.cluster.log(node.pod, MAIN):
                    lines += 1
                    yield line
            except ClusterError:
                self._kept.cluster = None  # it may not be looked at from here
        due = 0.0
        while True:
            over = _ended(self._kept.workflow(), node)
            if over or time.monotonic() >= due:
                found = self._kept.log(node)
                yield from found[lines:]
                lines, due = max(lines, len(found)), time.monotonic() + LOG_PAUSE
            if over:
                return
            time.sleep(PAUSE)


def _over(workflow: Workflow, step: str) -> bool:
    """Say whether nothing more comes of a step."""
    node = workflow.own(step)
    return workflow.cached(step) or bool(node and node.phase == "Succeeded")


def _ended(workflow: Workflow, node: PodNode) -> bool:
    same = [one for one in workflow.pods() if one.pod == node.pod]
    return not same or same[0].phase not in AT_WORK
