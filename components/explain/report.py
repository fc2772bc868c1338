"""The work of the exit task: write how the run ended, and tell the webhook."""

from pathlib import Path

from modelyard.components.errors import ModelyardError
from modelyard.components.explain import here, webhook
from modelyard.components.explain.explanation import Explanation, failed, succeeded

WELL = ("SUCCEEDED", "COMPLETE", "RUNNING")
"""States without a failure: the backend says RUNNING when every step came from the cache."""


def report(name: str, run: str, state: str, path: str) -> None:
    """Write a paragraph on how the run ended; the arguments are those of the component `explain`."""
    found = _explain(name, run, state in WELL)
    print(found.text, flush=True)  # noqa: T201 - the step's log
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found.text + "\n", encoding="utf-8")
    if problem := webhook.post(found.json()):
        print(problem, flush=True)  # noqa: T201


def _explain(name: str, run: str, ended_well: bool) -> Explanation:
    if folder := here.folder():
        return here.explain(folder, name, ended_well)
    from modelyard.components.explain import there  # which takes longer to import than all the rest

    try:
        return there.explain(run, name, there.own(), ended_well)
    except ModelyardError as error:  # the run has ended as it has: this does not make it fail
        print(error, flush=True)  # noqa: T201
        if ended_well:
            return succeeded(run, name, None)
        return failed(run, name, None, "why, cannot be seen from here; `modelyard explain` may see more.")
