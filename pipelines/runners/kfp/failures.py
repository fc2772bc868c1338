"""Why a run on Kubeflow Pipelines failed, as the error that its step ended with."""

from collections.abc import Sequence
from pathlib import Path

from modelyard.components.errors import ClusterError, ModelyardError, from_log
from modelyard.components.explain.failure_reason import failure_reason
from modelyard.components.explain.log_lines import has_traceback
from modelyard.components.explain.workflow import Workflow
from modelyard.pipelines.runners.kfp.kept import Kept
from modelyard.pipelines.runners.runs import Failure
from modelyard.pipelines.train_to_serve import STEPS


def of(kept: Kept, workflow: Workflow, logs: Path) -> Failure:
    """Return why a run failed, and put the log of the step into a folder.

    Args:
        kept: the run's records.
        workflow: the run's Workflow.
        logs: the folder.
    """
    node = workflow.failed()
    if node is None:
        said = workflow.message or "no pod of it says why"
        return told(ClusterError(f"The run failed: {said.rstrip('.')}. Run it again."), None, None)
    evidence = kept.evidence(node)
    log = logs / f"{node.step}.log" if evidence.log else None
    if log:
        log.write_text("".join(f"{line}\n" for line in evidence.log), encoding="utf-8")
    step = node.step if node.step in STEPS else None  # else a group of them, such as the whole
    return told(_error(step, evidence.log, failure_reason(evidence)), step, log)


def told(error: ModelyardError, step: str | None, log: Path | None) -> Failure:
    """Return an error as a summary tells it."""
    return Failure(
        kind=type(error).__name__,
        message=str(error),
        exit_code=error.exit_code,
        step=step,
        log=str(log) if log else None,
    )


def _error(step: str | None, log: Sequence[str], why: str) -> ModelyardError:
    """Make the error again that a step raised on purpose; what ended it from outside is the cluster's."""
    if known := from_log(list(log)):
        return known
    kind = ModelyardError if has_traceback(log) else ClusterError
    return kind(f"The step {step} failed: {why}" if step else f"The run failed: {why}")
