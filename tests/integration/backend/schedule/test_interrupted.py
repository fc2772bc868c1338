"""After kills, concurrent applies and lost responses, one recurring run remains."""

import itertools
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from modelyard.components.errors import ConflictError
from modelyard.pipelines.compile.uploads import Uploads
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.schedule import desired
from modelyard.pipelines.schedule.recurring import AppliedSchedule, RecurringRuns
from tests.integration.backend import recurring
from tests.integration.backend.conftest import FakeKfp, compile_cached
from tests.integration.backend.schedule.conftest import DAILY, HOURLY, config, new_schedules
from tests.integration.backend.server import Fault


class KilledError(Exception):
    """Simulates the end of the process."""


@pytest.fixture(autouse=True)
def _without_preflight(monkeypatch: pytest.MonkeyPatch) -> None:
    """Skip the checks of the pipeline, which are slow."""
    monkeypatch.setattr(desired, "check_pipeline", lambda *_: ())


def call_before_request(
    number: int, schedules: RecurringRuns, action: Callable[[], object]
) -> Callable[[], bool]:
    """Call `action` before a request of a command; return a function that returns whether it was called."""
    transport = schedules.backend.recurring_runs.api_client.rest_client
    request, numbers = transport.request, itertools.count(1)
    called = threading.Event()

    def call_and_request(*arguments: Any, **options: Any) -> Any:
        if next(numbers) == number:
            called.set()
            action()
        return request(*arguments, **options)

    transport.request = call_and_request
    return called.is_set


def kill() -> None:
    raise KilledError


def check_single_recurring_run(controller: recurring.RecurringRuns, epochs: int) -> None:
    (recurring_run,) = controller.recurring.values()
    assert recurring_run.mode == "ENABLE"
    assert f'"epochs":{epochs}' in recurring_run.runtime_config.parameters["deploy_spec"]


def test_one_recurring_run_remains_after_a_kill_before_any_request_and_a_retry(
    environment: Environment, controller: recurring.RecurringRuns
) -> None:
    new_schedules(environment).apply(config(DAILY))
    for number in itertools.count(1):
        expected = config(HOURLY, f"training.epochs={number}")
        first = new_schedules(environment)
        killed = call_before_request(number, first, kill)
        with suppress(KilledError):
            first.apply(expected)
        assert len(controller.enabled) in (1, 2)
        new_schedules(environment).apply(expected)
        check_single_recurring_run(controller, number)
        if not killed():
            break
    assert number > 8


@pytest.mark.parametrize("other", [HOURLY, DAILY], ids=["same", "different"])
def test_one_recurring_run_remains_after_a_concurrent_apply_at_any_request(
    environment: Environment, controller: recurring.RecurringRuns, other: str
) -> None:
    conflicts = 0
    for number in itertools.count(1):
        first, second = new_schedules(environment), new_schedules(environment)
        epochs = f"training.epochs={number}"
        replaced = call_before_request(number, first, partial(second.apply, config(other, epochs)))
        try:
            first.apply(config(HOURLY, epochs))
        except ConflictError:
            conflicts += 1
        check_single_recurring_run(controller, number)
        if not replaced():
            break
    assert number > 8
    assert bool(conflicts) == (other == DAILY), "only a different schedule is a conflict"


@pytest.mark.parametrize("other", [HOURLY, DAILY], ids=["same", "different"])
def test_one_recurring_run_remains_after_two_concurrent_applies(
    environment: Environment, controller: recurring.RecurringRuns, other: str
) -> None:
    compile_cached(environment.to_json())  # KFP's compiler does not support threads
    for epochs in range(1, 4):
        results: list[AppliedSchedule | ConflictError] = []
        barrier = threading.Barrier(2)

        def apply(expected: Uploads, results: list[Any] = results, barrier: Any = barrier) -> None:
            schedules = new_schedules(environment)
            barrier.wait()
            try:
                results.append(schedules.apply(expected))
            except ConflictError as error:
                results.append(error)

        threads = [
            threading.Thread(target=apply, args=(config(cron, f"training.epochs={epochs}"),))
            for cron in (HOURLY, other)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        check_single_recurring_run(controller, epochs)
        assert len(results) == 2
        assert any(isinstance(result, AppliedSchedule) for result in results)
        if other == HOURLY:
            assert not any(isinstance(result, ConflictError) for result in results)


@pytest.mark.parametrize("cut", ["before", "after"])
def test_a_lost_response_creates_no_duplicate(
    fake_kfp: FakeKfp, controller: recurring.RecurringRuns, schedules: RecurringRuns, cut: str
) -> None:
    fake_kfp.server.faults.append(Fault(cut=cut, path="/recurringruns", method="POST"))
    schedules.apply(config(DAILY))
    assert len(controller.recurring) == 1
