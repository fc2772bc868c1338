"""The exit task: writes how the run ended, posts it to the webhook, and records it in the store.

The URL of the webhook is a secret, so it must not appear in a log, an artifact or a message.
"""

import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from modelyard.components import records
from modelyard.components.errors import ConfigError, ModelyardError
from modelyard.components.explain import local_run
from modelyard.components.explain.explanation import Explanation, create_explanation, describe_decision
from modelyard.components.explain.spec import ExplainSpec
from modelyard.components.machine import is_loopback
from modelyard.components.step import log
from modelyard.components.store.objects import Objects
from modelyard.components.store.records import write_record
from modelyard.components.store.storage import open_objects

WEBHOOK = "MODELYARD_WEBHOOK"
TIMEOUT = 10.0
NO_DECISION = "no new version was deployed"  # evaluate was cached, and its record was deleted
NO_FAILURE = ("SUCCEEDED", "COMPLETE", "RUNNING")  # KFP reports RUNNING if all steps were cached


def report_end(spec: ExplainSpec, run: str, state: str, path: str) -> None:
    """Write, post and record how a run ended; the arguments are those of the component `explain`."""
    decision, succeeded = "", state in NO_FAILURE
    if succeeded:
        with _log_errors():
            record = records.read_run(open_objects(spec.store), spec.name, records.run_id() or "")
            final_decision = record.final_decision()
            decision = describe_decision(*final_decision) if final_decision else NO_DECISION
    explanation = _explain(spec.name, run, succeeded, decision)
    log(explanation.text)
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(explanation.text + "\n", encoding="utf-8")
    if error := post_webhook(explanation.json()):
        log(error)
    with _log_errors():
        if run_id := records.run_id():
            record_end(open_objects(spec.store), spec.name, run_id, explanation)


def record_end(objects: Objects, model: str, run_id: str, explanation: Explanation) -> None:
    """Record in the store how a run ended; raise StoreError if the store is not writable."""
    if explanation.state == "running":
        return
    end = records.RunEnd(
        run_id=run_id,
        model=model,
        state=explanation.state,
        step=explanation.step,
        kind=explanation.kind,
        text=explanation.text,
        ended=records.now(),
    )
    write_record(objects, records.end_key(model, run_id), end)


@contextmanager
def _log_errors() -> Iterator[None]:
    """Log errors, so that the exit task does not fail the run."""
    try:
        yield
    except ModelyardError as error:
        log(str(error))


def post_webhook(value: Mapping[str, str | None]) -> str | None:
    """Post a value as JSON to the URL in MODELYARD_WEBHOOK; return an error without the URL, or None."""
    url = os.environ.get(WEBHOOK, "").strip()
    if not url:
        return None
    import httpx

    from modelyard.components.source.web import ProxiedTransport

    logging.getLogger("httpx").setLevel(logging.WARNING)  # INFO logs the URL
    try:
        webhook_url = httpx.URL(url)
        if webhook_url.scheme != "https" and not (webhook_url.scheme == "http" and is_loopback(url)):
            return f"The webhook was not called: {WEBHOOK} must be an https:// URL."
        with httpx.Client(transport=ProxiedTransport(), timeout=TIMEOUT) as client:
            response = client.post(webhook_url, json=dict(value))
    except ConfigError:  # its message contains a part of the URL
        return (
            "The webhook was not called: the proxy or the certificates cannot be used. Run `modelyard "
            "doctor`."
        )
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # its message may contain the URL
        return f"The webhook failed: {type(error).__name__}. Check {WEBHOOK} and its server."
    if not response.is_success:
        return f"The webhook failed: it returned status {response.status_code}."
    return None


def _explain(name: str, run: str, succeeded: bool, decision: str) -> Explanation:
    if folder := local_run.run_folder():
        return local_run.explain(folder, name, succeeded, decision)
    from modelyard.components.explain import kfp_run  # imports the Kubernetes client

    try:
        return kfp_run.explain(run, name, kfp_run.current_run(), succeeded, decision)
    except ModelyardError as error:
        log(str(error))
    if succeeded:
        return create_explanation(run, name, "succeeded", None, decision)
    return create_explanation(run, name, "failed", None, "`modelyard explain` may show why.")
