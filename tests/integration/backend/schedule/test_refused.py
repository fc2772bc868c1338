"""What is no schedule of ours, or none that Kubeflow Pipelines can keep, is left as it is."""

import pytest

from modelyard.components.errors import ConfigError, ConflictError, NotFoundError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.schedule.recurring.scheduler import RecurringRuns
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
        lambda: schedules.plan(config(DAILY)),
        lambda: schedules.pause("digits"),
        lambda: schedules.delete("digits"),
        lambda: schedules.run_now("digits"),
    ):
        with pytest.raises(ConflictError, match=r"There is a recurring run digits at .* did not make it"):
            command()
    assert schedules.all() == []
    assert changing(site) == before


def test_a_schedule_for_another_store_is_left_alone(site: Site, schedules: RecurringRuns) -> None:
    schedules.apply(config(DAILY))
    before = changing(site)
    with pytest.raises(
        ConflictError, match=r"models in the store gs://bucket/models, and .* gs://other/models"
    ):
        schedules.apply(config(DAILY, url="gs://other/models"))
    assert changing(site) == before


def test_a_clock_that_the_server_does_not_have(
    environment: Environment, controller: recurring.RecurringRuns, schedules: RecurringRuns
) -> None:
    berlin = config(DAILY, "schedule.time_zone=Europe/Berlin")
    with pytest.raises(ConfigError, match=r"zone of its server, UTC \(environment.kfp.time_zone\)"):
        schedules.apply(berlin)
    there = environment.kfp.model_copy(update={"time_zone": "Europe/Berlin"})
    new(environment.model_copy(update={"kfp": there})).apply(berlin)
    (made,) = controller.firing
    assert made.trigger.cron_schedule.cron == "0 0 3 * * *"


def test_a_cron_line_for_which_the_server_has_no_room(site: Site, schedules: RecurringRuns) -> None:
    minutes = ",".join(map(str, range(0, 60, 2)))
    hours = ",".join(map(str, range(0, 24)))
    with pytest.raises(ConfigError, match="longer than Kubeflow Pipelines has room for"):
        schedules.apply(config(f'schedule.cron="{minutes} {hours} * * *"'))
    assert changing(site) == []


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
    with pytest.raises(NotFoundError, match="There is no schedule of digits; modelyard has made none here"):
        schedules.pause("digits")
    schedules.apply(config(DAILY))
    with pytest.raises(NotFoundError, match="there are those of digits"):
        schedules.delete("digit")
    with pytest.raises(ConfigError, match="has no section `schedule`"):
        schedules.apply(config())
