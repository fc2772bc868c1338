"""What is no schedule of ours, or none that Kubeflow Pipelines can keep, is left as it is."""

import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.schedule.recurring import RecurringRuns
from tests.integration.backend import recurring
from tests.integration.backend.conftest import Site
from tests.integration.backend.schedule.conftest import DAILY, HOURLY, changing, config, new


def test_schedules_of_others_are_left_alone(
    site: Site, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    schedules.apply(config(DAILY))
    (made,) = controller.firing
    made.description = "The nightly run of the data team"
    before = changing(site)
    for command in (
        lambda: schedules.apply(config(HOURLY)),
        lambda: schedules.apply(config(DAILY), dry_run=True),
        lambda: schedules.pause("digits"),
        lambda: schedules.delete("digits"),
        lambda: schedules.run_now("digits"),
    ):
        with pytest.raises(ConflictError, match="recurring run digits"):
            command()
    assert schedules.list_all() == []
    assert changing(site) == before


def test_a_schedule_for_another_store_is_left_alone(site: Site, schedules: RecurringRuns) -> None:
    schedules.apply(config(DAILY))
    before = changing(site)
    with pytest.raises(ConflictError, match=r"gs://bucket/models.* gs://other/models"):
        schedules.apply(config(DAILY, url="gs://other/models"))
    assert changing(site) == before


def test_another_time_zone_than_that_of_the_server_is_refused(
    environment: Environment, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    berlin = config(DAILY, "schedule.time_zone=Europe/Berlin")
    with pytest.raises(ConfigError, match=r"Europe/Berlin.* UTC \(environment.kfp.time_zone\)"):
        schedules.apply(berlin)
    there = environment.kfp.model_copy(update={"time_zone": "Europe/Berlin"})
    new(environment.model_copy(update={"kfp": there})).apply(berlin)
    (made,) = controller.firing
    assert made.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_a_server_of_several_users(
    site: Site, controller: recurring.RecurringRuns, environment: Environment
) -> None:
    site.server.multi_user = True
    schedules = new(environment)
    schedules.apply(config(HOURLY))
    schedules.pause("digits")
    schedules.resume("digits")
    (made,) = controller.firing
    assert made.namespace == environment.runs.namespace
    controller.pass_time(hours=1)
    schedules.delete("digits")
    assert (controller.recurring, controller.killed) == ({}, [])


def test_a_schedule_that_is_not_there(schedules: RecurringRuns) -> None:
    with pytest.raises(NotFoundError, match="no schedule of digits"):
        schedules.pause("digits")
    schedules.apply(config(DAILY))
    with pytest.raises(NotFoundError, match="those of digits"):
        schedules.delete("digit")
    with pytest.raises(ConfigError, match="has no section `schedule`"):
        schedules.apply(config())
