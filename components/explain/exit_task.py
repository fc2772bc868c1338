"""The work of the exit task: write how the run ended, and post it to the webhook.

The webhook's URL is a secret, as whoever knows it can post there: it is in no log, artifact or message.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path

from modelyard.components.errors import ModelyardError
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import Explanation, explanation

WEBHOOK = "MODELYARD_WEBHOOK"
LOOPBACK = ("localhost", "127.0.0.1", "::1")
TIMEOUT = 10.0
NO_FAILURE = ("SUCCEEDED", "COMPLETE", "RUNNING")  # the backend says RUNNING when all steps were cached


def report(name: str, run: str, state: str, path: str) -> None:
    """Write a paragraph on how the run ended; the arguments are those of the component `explain`."""
    found = _explain(name, run, state in NO_FAILURE)
    print(found.text, flush=True)  # noqa: T201 - the step's log
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(found.text + "\n", encoding="utf-8")
    if problem := post(found.json()):
        print(problem, flush=True)  # noqa: T201


def post(value: Mapping[str, str | None]) -> str | None:
    """Post a value as JSON to the URL in MODELYARD_WEBHOOK, if there is one.

    Returns:
        What went wrong, in a sentence without the URL; None when nothing did, or there is none.
    """
    url = os.environ.get(WEBHOOK, "").strip()
    if not url:
        return None
    import httpx

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the URL
    try:
        parsed = httpx.URL(url)
        if parsed.scheme != "https" and not (parsed.scheme == "http" and parsed.host in LOOPBACK):
            return f"The webhook was not called: {WEBHOOK} has to be an https:// URL."
        answer = httpx.post(parsed, json=dict(value), timeout=TIMEOUT)
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # whose text may contain the URL
        return f"The webhook was not called: {type(error).__name__}. Is {WEBHOOK} right, and does it answer?"
    if not answer.is_success:
        return f"The webhook was not called: it answered with status {answer.status_code}."
    return None


def _explain(name: str, run: str, succeeded: bool) -> Explanation:
    if folder := local_run.run_folder():
        return local_run.explain(folder, name, succeeded)
    from modelyard.components.explain import kfp_run  # imports the Kubernetes client

    try:
        return kfp_run.explain(run, name, kfp_run.own_run(), succeeded)
    except ModelyardError as error:  # an exit task that sees nothing does not make the run fail
        print(error, flush=True)  # noqa: T201
        if succeeded:
            return explanation(run, name, "succeeded", None)
        return explanation(run, name, "failed", None, "`modelyard explain` may say why.")
