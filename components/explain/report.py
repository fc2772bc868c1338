"""The work of the exit task: write how the run ended, and tell the webhook."""

from pathlib import Path

from components.explain import here, webhook
from components.explain.explanation import Explanation

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
    from components.explain import there

    return there.explain(run, name, ended_well)
