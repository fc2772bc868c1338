"""Why a step of a cluster did not do its work, and what to change: from its pod, its node and its log."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from modelyard.components.explain import words
from modelyard.components.explain.workflow import PodNode
from modelyard.components.kubernetes.api_errors import explain_refusal
from modelyard.components.kubernetes.pod_problem import CREATING, PULLING, Json, PodProblem, find_problem

MEMORY = "OOMKilled"
LATE = re.compile(r"DeadlineExceeded|longer than (?:the )?specified deadline")
WHOLE_RUN_LATE = re.compile(r"exceeded (?:its|workflow) deadline")
LOST = re.compile(
    r"pod deleted|Evicted|Preempt|NodeLost|node (?:was|is) (?:low|shut|not)|Terminat", re.IGNORECASE
)
REFUSED = re.compile(r"is forbidden|exceeded quota|violates PodSecurity")
WAITS = re.compile(
    rf"^(?P<reason>{'|'.join(('Unschedulable', *PULLING, *CREATING))})(?:: (?P<said>.*))?$", re.DOTALL
)
EXIT = re.compile(r"exit code (\d+)")


@dataclass(frozen=True)
class Evidence:
    """What is known of a pod that did not do its work; `pod` is None when it is gone."""

    node: PodNode
    log: Sequence[str] = ()
    pod: Json | None = None
    events: Sequence[Json] = ()
    nodes: Sequence[Json] = field(default=())

    @property
    def trouble(self) -> PodProblem | None:
        """What Kubernetes says keeps, or kept, the pod from its work."""
        return find_problem(self.pod, self.events, self.nodes) if self.pod else None


def cause(found: Evidence) -> str:
    """Return why a pod failed, and what to change, as a paragraph."""
    step, said = found.node.step, found.node.message
    if WHOLE_RUN_LATE.search(said):
        late = "the time of the whole run (environment.active_deadline) was over"
        if found.node.host:
            return f"{late} while it was at work, or waited for its image. Give it more time, or less to do."
        return f"{late}, and no node had taken its pod.{_keys('Unschedulable', step)}"
    if REFUSED.search(said):
        return explain_refusal(said).message
    if found.node.driver:
        return _driver(found)
    if MEMORY in said or words.killed(found.log) or (found.trouble and found.trouble.reason == MEMORY):
        return _memory(found)
    if LATE.search(said) or _status(found, "reason") == "DeadlineExceeded":
        return (
            "it was stopped because it did not end in time. Give it more "
            f"(environment.steps.{step}.timeout), or less to do."
        )
    if waits := WAITS.match(said.removeprefix("Pod failed before main container starts due to ")):
        return waiting(found) or _waits(found, waits["reason"], waits["said"] or "")
    if words.no_room(found.log):
        return (
            f"it found no room on its disk. Give it more (environment.steps.{step}.ephemeral_storage), or "
            "less data."
        )
    if known := words.error_in(found.log):
        return str(known)
    if LOST.search(said) or LOST.search(_status(found, "reason")):
        return (
            f"its pod was lost ({_status(found, 'message') or said}). Run it again: what is done is cached; "
            f"environment.steps.{step}.retries lets it be tried again by itself."
        )
    return _unexpected(found)


def waiting(found: Evidence) -> str | None:
    """Return what keeps a pod from starting, and what to change, as a paragraph; None when nothing does."""
    step, seen = found.node.step, found.trouble
    if seen is None:
        return None
    return f"{seen.message}{_keys(seen.reason, step)}" if not found.node.driver else seen.message


def _keys(reason: str, step: str) -> str:
    """Return where the configuration says what a pod asks for."""
    if reason == "Unschedulable":
        return f" What it asks for is in environment.steps.{step} and environment.defaults."
    if reason == "ImagePull":
        return f" Its image is environment.images.{step}."
    return ""


def _waits(found: Evidence, reason: str, said: str) -> str:
    """Return the same as `waiting`, of a pod that is gone."""
    step, said = found.node.step, said.strip().rstrip(".")
    if reason == "Unschedulable":
        return f"no node took its pod. The scheduler said: {said}.{_keys(reason, step)}"
    if reason in PULLING:
        cause = said.rsplit("desc = ", 1)[-1] or reason
        return f"its image could not be pulled: {cause}.{_keys('ImagePull', step)}"
    return (
        f"its container could not be created: {said or reason}. Correct the image or what its pod refers to."
    )


def _memory(found: Evidence) -> str:
    step, seen = found.node.step, found.trouble
    known = (
        seen.message if seen and seen.reason == MEMORY else "it was killed because it used too much memory."
    )
    batch = ", its batch training.batch_size" if step == "train" else ""
    return f"{known} Its memory is environment.steps.{step}.memory{batch}."


def _driver(found: Evidence) -> str:
    """Return why a pod of Kubeflow Pipelines itself failed."""
    last = words.last_words(found.log) or found.node.message or "it left no message"
    return (
        "the driver of Kubeflow Pipelines, which goes before it, ended with an error of its own: "
        f"{last.rstrip('.')}. Ask who runs Kubeflow Pipelines, or run it again."
    )


def _unexpected(found: Evidence) -> str:
    code = EXIT.search(found.node.message)
    ended = (
        f"it ended with exit code {code[1]}"
        if code
        else f"it ended ({found.node.message or 'nobody says why'})"
    )
    last = words.last_words(found.log)
    if not last:
        return f"{ended}, and no log of it can be read from here. `modelyard logs` may show more."
    if REFUSED.search(last):
        return explain_refusal(last).message
    return f"{ended}. Its log ends: {last.rstrip('.')}."


def _status(found: Evidence, key: str) -> str:
    return str((found.pod or {}).get("status", {}).get(key) or "").rstrip(".")
