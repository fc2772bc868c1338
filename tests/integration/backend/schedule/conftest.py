"""Schedules on a fake server with a controllable clock."""

from io import StringIO

import pytest
from rich.console import Console

from modelyard.pipelines.compile.uploads import Uploads
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.runners.kfp.client import connect
from modelyard.pipelines.schedule import recurring as schedule_recurring
from modelyard.pipelines.schedule.recurring import RecurringRuns
from tests.integration.backend import recurring
from tests.integration.backend.conftest import FakeKfp

DAILY, HOURLY = "schedule.cron=0 3 * * *", "schedule.cron=0 * * * *"


@pytest.fixture(autouse=True)
def controller(fake_kfp: FakeKfp, monkeypatch: pytest.MonkeyPatch) -> recurring.RecurringRuns:
    runs = recurring.RecurringRuns(fake_kfp.server, fake_kfp.pipelines, fake_kfp.runs)
    fake_kfp.server.mount(runs)
    monkeypatch.setattr(schedule_recurring, "time", Clock(runs))
    return runs


class Clock:
    """The clock of the controller; it advances while a command waits."""

    def __init__(self, controller: recurring.RecurringRuns) -> None:
        self.controller = controller

    def time(self) -> float:
        return self.controller.now.timestamp()

    def sleep(self, seconds: float) -> None:
        self.controller.advance(seconds=seconds)
        self.controller.report()


@pytest.fixture
def schedules(environment: Environment) -> RecurringRuns:
    return new_schedules(environment)


def new_schedules(environment: Environment) -> RecurringRuns:
    return RecurringRuns(connect(environment), environment, Console(file=StringIO()))


def config(*overrides: str, **store: str) -> Uploads:
    loaded = load(overrides=overrides, environ={})
    store_settings = loaded.store.model_copy(update=store or {"url": "gs://bucket/models"})
    return Uploads(loaded.model_copy(update={"store": store_settings}), ())


def write_requests(fake_kfp: FakeKfp) -> list[str]:
    return [request for request in fake_kfp.server.requests if not request.startswith("GET")]
