"""The mark of a recurring run: what its description has room for; the rest is read from the run itself."""

import json
import re
from typing import Any

from modelyard.components.errors import ConfigError
from modelyard.pipelines.config import durations
from modelyard.pipelines.schedule.mark import SIGN, Mark

ROOM = 191  # characters; the server stores no more, and a schedule that it cannot store fires all the same
SPARE = 4  # for later generations
STAMP = re.compile(
    rf"(?P<cron>.+) in (?P<time_zone>\S+), by {re.escape(SIGN)} (?P<generation>[0-9]+) (?P<sha256>[0-9a-f]+)"
)


def text(mark: Mark) -> str:
    """Return the description."""
    cron, zone = mark.schedule["cron"], mark.schedule["time_zone"]
    return f"{cron} in {zone}, by {SIGN} {mark.generation} {mark.sha256}"


def check(mark: Mark, trigger: str) -> None:
    """Look whether the server has room for the description, and for the cron line as it reads it.

    Raises:
        ConfigError: it has not.
    """
    longest = max(len(text(mark)) + SPARE, len(trigger))
    if longest > ROOM:
        raise ConfigError(
            f'schedule.cron is "{mark.schedule["cron"]}", which is {longest - ROOM} characters longer than '
            "Kubeflow Pipelines has room for. Ask for fewer times."
        )


def read(run: Any) -> Mark | None:
    """Return the mark of a recurring run, or None: it is not modelyard's."""
    found = STAMP.fullmatch(run.description or "")
    if found is None:
        return None
    parameters = (run.runtime_config.parameters if run.runtime_config else None) or {}
    age = int(parameters.get("force_after") or 0)
    return Mark(
        name=run.display_name,
        store=json.loads(parameters.get("store") or "{}").get("url", ""),
        sha256=found["sha256"],
        generation=int(found["generation"]),
        schedule={
            "cron": found["cron"],
            "time_zone": found["time_zone"],
            "concurrency": int(run.max_concurrency),
            "catch_up": not run.no_catchup,
            "skip_unchanged": bool(parameters.get("skip_unchanged")),
            "force_after": durations.text(age) if age else None,
        },
    )
