"""The work of the exit task: write how the run ended, post it to the webhook, and record it in the store.

The webhook's URL is a secret, as whoever knows it can post there: it is in no log, artifact or message.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from modelyard.components import records
from modelyard.components.errors import ConfigError, ModelyardError
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import Explanation, explanation
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.machine import is_loopback
from modelyard.components.step import log
from modelyard.components.store.objects import Objects
from modelyard.components.store.storage import open_objects

WEBHOOK = "MODELYARD_WEBHOOK"
TIMEOUT = 10.0
NO_DECISION = "no new version was deployed"  # evaluate came from the cache, and its record is gone
NO_FAILURE = ("SUCCEEDED", "COMPLETE", "RUNNING")  # the backend says RUNNING when all steps were cached


def report(spec: ExplainSpec, run: str, state: str, path: str) -> None:
    """Write a paragraph on how the run ended; the arguments are those of the component `explain`."""
    decided, succeeded = "", state in NO_FAILURE
    if succeeded:
        with _logged():
            found = records.of_run(open_objects(spec.store), spec.name, records.run_id() or "").decided()
            decided = ": ".join(found) if found else NO_DECISION
    ended = _explain(spec.name, run, succeeded, decided)
    log(ended.text)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(ended.text + "\n", encoding="utf-8")
    if problem := post(ended.json()):
        log(problem)
    with _logged():
        if run_id := records.run_id():
            record_end(open_objects(spec.store), spec.name, run_id, ended)


def record_end(objects: Objects, model: str, run_id: str, ended: Explanation) -> None:
    """Write how a run ended into the store of its model.

    Raises:
        StoreError: it cannot be written.
    """
    if ended.state == "running":
        return
    end = records.RunEnd(
        run_id=run_id,
        model=model,
        state=ended.state,
        step=ended.step,
        kind=ended.kind,
        text=ended.text,
        ended=records.now(),
    )
    records.write(objects, records.end_key(model, run_id), end)


@contextmanager
def _logged() -> Iterator[None]:
    """Log an error: an exit task that cannot see or write something does not make the run fail."""
    try:
        yield
    except ModelyardError as error:
        log(str(error))


def post(value: Mapping[str, str | None]) -> str | None:
    """Post a value as JSON to the URL in MODELYARD_WEBHOOK, if there is one.

    Returns:
        What went wrong, in a sentence without the URL; None when nothing did, or there is none.
    """
    url = os.environ.get(WEBHOOK, "").strip()
    if not url:
        return None
    import httpx

    from modelyard.components.source.web import ProxiedTransport

    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log the URL
    try:
        parsed = httpx.URL(url)
        if parsed.scheme != "https" and not (parsed.scheme == "http" and is_loopback(url)):
            return f"The webhook was not called: {WEBHOOK} has to be an https:// URL."
        with httpx.Client(transport=ProxiedTransport(), timeout=TIMEOUT) as client:
            answer = client.post(parsed, json=dict(value))
    except ConfigError:  # whose text has a part of the URL
        return "The webhook was not called: `modelyard doctor` says what is wrong with proxy or certificates."
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # whose text may contain the URL
        return f"The webhook was not called: {type(error).__name__}. Is {WEBHOOK} right, and does it answer?"
    if not answer.is_success:
        return f"The webhook was not called: it answered with status {answer.status_code}."
    return None


def _explain(name: str, run: str, succeeded: bool, decided: str) -> Explanation:
    if folder := local_run.run_folder():
        return local_run.explain(folder, name, succeeded, decided)
    from modelyard.components.explain import kfp_run  # and what it needs of Kubernetes

    try:
        return kfp_run.explain(run, name, kfp_run.own_run(), succeeded, decided)
    except ModelyardError as error:
        log(str(error))
    if succeeded:
        return explanation(run, name, "succeeded", None, decided)
    return explanation(run, name, "failed", None, "`modelyard explain` may say why.")
