"""Rollouts on a platform in memory: clients always reach a verified server."""

import threading

import pytest

from modelyard.components.deploy import verification
from modelyard.components.deploy.platforms import base
from modelyard.components.deploy.platforms.base import Superseded
from modelyard.components.deploy.verification import pin_version
from modelyard.components.errors import (
    ClusterError,
    ConflictError,
    DeployError,
    NotFoundError,
    StoreError,
    UnreachableError,
)
from tests.unit.deploy.conftest import intercept
from tests.unit.deploy.memory import Fault, FaultyProxy, Killed, MemoryPlatform


def history_entries(models):
    return [(entry.action, entry.version, entry.attempt) for entry in models.history("digits")]


# Versions that cannot run --------------------------------------------------------------------------


@pytest.mark.usefixtures("v1")
def test_champion_that_cannot_run_does_not_block_other_versions(
    models, world, publish, deploy, promote, state, logged
):
    v2, v3 = publish(), publish()
    promote(v2)
    world.broken.add(v2.version)
    with pytest.raises(
        DeployError, match=r"the pod\. Version 2 was not deployed, and stable serves version 1"
    ):
        deploy(v2)
    assert state() == (2, 1, None, True), "stable is unchanged"
    last = models.history("digits")[-1]
    assert (last.version, last.attempt) == (2, True)
    assert last.reason.startswith("not deployed: ")

    world.broken.add(v3.version)
    with pytest.raises(DeployError, match=r"Version 3 was not promoted, and stable serves version 1 as b"):
        deploy(v3)
    assert history_entries(models)[-1] == ("promote", 3, True)

    world.broken.remove(v3.version)
    assert deploy(v3).decision == "promote"
    assert state() == (3, 3, None, True)
    assert any("Stable serves version 1 as before. Continuing" in line for line in logged)


def test_champion_that_never_ran_leaves_no_stable(world, publish, deploy, promote, state):
    v1, v2 = publish(), publish()
    promote(v1)
    world.broken.add(v1.version)
    with pytest.raises(DeployError, match="Version 1 was not deployed, and nothing is served"):
        deploy(v1)
    assert state() == (1, None, None, True)
    assert deploy(v2).decision == "promote"
    assert state() == (2, 2, None, True)


@pytest.mark.usefixtures("v1")
def test_champion_with_missing_files_does_not_block_other_versions(
    models, publish, deploy, promote, state, monkeypatch
):
    v2, v3 = publish(), publish()
    promote(v2)
    digest = models.digest
    monkeypatch.setattr(models, "digest", lambda name, number: digest(name, number + 100 * (number == 2)))
    assert deploy(v3).decision == "promote"
    assert state() == (3, 3, None, True)


@pytest.mark.usefixtures("v1")
def test_champion_with_wrong_predictions_is_not_served(controller, world, publish, deploy, promote, state):
    v2, before = publish(prediction=0.7), world.stable
    promote(v2)
    with pytest.raises(DeployError, match=r"than evaluate.* stable serves version 1 as before"):
        deploy(v2)
    assert state() == (2, 1, None, True)
    assert world.stable is before

    deploy(publish())
    with pytest.raises(DeployError, match=r"than evaluate.* stable serves version 3 as before"):
        controller.rollback(v2.version, "a mistake")
    assert state() == (3, 3, None, True)


@pytest.mark.usefixtures("v1")
def test_version_without_golden_requests_is_not_served(
    models, publish, deploy, promote, state, monkeypatch, logged
):
    v2, v3 = publish(), publish()
    promote(v2)
    monkeypatch.setattr(verification, "GOLDEN_FILE", "absent.json")
    assert deploy(v3).decision == "promote"
    assert any("Stable still has the servers of version 1. Continuing" in line for line in logged)
    assert state() == (3, 3, None, True)
    with pytest.raises(DeployError, match=r"has no absent\.json"):
        pin_version(models, "digits", v2.version)


def test_rollback_without_a_champion_is_an_error(controller):
    with pytest.raises(NotFoundError, match="digits"):
        controller.rollback(None, "it is bad")


@pytest.mark.usefixtures("v1")
def test_candidate_without_servers_is_not_promoted(controller, publish, deploy, state, monkeypatch):
    monkeypatch.setattr(controller.platform, "verify", lambda *_: 0)
    with pytest.raises(DeployError, match="Version 2 was not promoted, and stable serves version 1 as bef"):
        deploy(publish())
    assert state() == (1, 1, None, True)


@pytest.mark.parametrize("event", ["concurrent rollout", "store unreachable"])
def test_candidate_of_a_killed_first_rollout_keeps_serving(
    controller, models, world, publish, deploy, state, monkeypatch, event
):
    v1, v2, platform = publish(), publish(), controller.platform
    platform.claim("killed", platform.describe_servers(1, v1.digest))
    world.verified = True
    platform.route_to_candidate("killed")

    def supersede():
        raise Superseded("another rollout gives stable the same servers")

    def fail(*_):
        raise UnreachableError("the store is unreachable")

    if event == "concurrent rollout":
        intercept(platform, "reconcile", after=supersede)
        assert deploy(v2).decision == "promote"
        assert state() == (2, 2, None, True)
    else:
        monkeypatch.setattr(models, "manifest", fail)
        with pytest.raises(UnreachableError):
            deploy(v2)
        assert world.candidate is not None
        assert world.canary


# The champion with other servers -------------------------------------------------------------------


def test_champion_with_another_image_is_verified_as_a_candidate(controller, models, world, v1, deploy, state):
    controller.platform.image = "serve:2"
    world.wrong_images.add("serve:2")
    with pytest.raises(DeployError, match=r"than evaluate.*Version 1 was not deployed, and st"):
        deploy(v1)
    assert world.stable.image == "serve:1", "stable is unchanged"
    assert history_entries(models)[-1] == ("promote", 1, True)
    world.wrong_images.clear()
    history = models.history("digits")
    assert deploy(v1).decision == "promote"
    assert (world.stable.image, state()) == ("serve:2", (1, 1, None, True))
    assert models.history("digits") == history, "the pointer did not move"


def test_same_servers_need_no_candidate(v1, deploy, state, logged):
    assert deploy(v1).decision == "promote"
    assert logged == []
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_rollout_of_another_version_keeps_the_champions_image(controller, world, publish, deploy):
    controller.platform.image, images = "serve:2", []
    controller.log = lambda _: images.append(world.stable.image)
    deploy(publish())
    assert (images[0], images[-1]) == ("serve:1", "serve:2")


@pytest.mark.usefixtures("v1")
def test_manually_promoted_candidate_keeps_its_image(controller, world, publish):
    controller.platform.claim("token", controller.platform.describe_servers(2, publish().digest))
    controller.platform.image = "serve:of-another-user"
    assert controller.promote_candidate("good").version == 2
    assert (world.stable.version, world.stable.image) == (2, "serve:1")


def test_promote_without_a_candidate_is_an_error(controller):
    with pytest.raises(DeployError, match="`modelyard deploy digits VERSION -e ENV` starts a rollout"):
        controller.promote_candidate("good")


# Rollbacks, and promotions that stable cannot follow -----------------------------------------------


@pytest.mark.usefixtures("v1")
def test_rollback_restores_the_earlier_servers(controller, world, publish, deploy, state):
    controller.platform.image = "serve:2"
    deploy(publish())
    controller.platform.image = "serve:of-another-user"
    assert controller.rollback(None, "bad").version == 1
    assert (state(), world.stable.image) == ((1, 1, None, True), "serve:1")


@pytest.mark.parametrize("track", ["as candidate", "as stable"])
def test_rollback_to_a_version_that_cannot_run(controller, models, world, v1, publish, deploy, state, track):
    deploy(publish())
    before = world.stable
    (world.broken if track == "as candidate" else world.broken_as_stable).add(v1.version)
    with pytest.raises(DeployError, match="refuses the pod") as error:
        controller.rollback(None, "it is bad")
    assert world.stable is before
    assert state() == (2, 2, None, True)
    if track == "as candidate":
        assert str(error.value).endswith("Version 1 was not promoted, and stable serves version 2 as before.")
        assert history_entries(models)[-1] == ("promote", 1, True), "the pointer did not move"
    else:
        assert "Version 2 is the champion again. Stable serves version 2 as before." in str(error.value)
        assert history_entries(models)[-2:] == [("rollback", 1, False), ("rollback", 2, False)]


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize("damage", ["damaged", "missing", "manifest"])
@pytest.mark.parametrize("command", ["deploy", "rollback", "rollout promote"])
def test_version_with_damaged_files_is_refused(
    controller, new_controller, models, world, publish, deploy, state, damage, command
):
    v2, platform, data = publish(), controller.platform, models._objects._data
    if command == "rollback":
        deploy(v2)
    elif command == "rollout promote":
        platform.claim("token", platform.describe_servers(2, v2.digest))
    number = 1 if command == "rollback" else 2
    before, history = (state(), world.stable), models.history("digits")
    key = f"digits/versions/{number:06d}/{'manifest.json' if damage == 'manifest' else 'model.onnx'}"
    if damage == "missing":
        del data[key]
    else:
        data[key] = (b"{", "1")
    with pytest.raises(DeployError, match=r"model\.onnx of version|manifest\.json is damaged") as error:
        if command == "deploy":
            pin_version(models, "digits", 2)
        elif command == "rollback":
            new_controller().rollback(None, "it is bad")
        else:
            controller.promote_candidate("it is good")
    assert error.value.exit_code == 6
    assert (state(), world.stable) == before
    assert models.history("digits") == history


@pytest.mark.usefixtures("v1")
def test_rollback_replaces_a_canary(new_controller, publish, deploy, state, on_log):
    deploy(publish())
    v3, rollbacks = publish(), []
    on_log("canary: ", lambda: rollbacks.append(new_controller().rollback(None, "2 is bad")))
    assert deploy(v3).decision == "hold"
    assert rollbacks[0].version == 1
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_rollback_conflicts_with_a_promotion_during_verification(
    controller, publish, deploy, promote, state, on_log
):
    deploy(publish())
    v3 = publish()
    on_log("verified: ", lambda: promote(v3))
    with pytest.raises(ConflictError, match="to be version 2, and is version 3"):
        controller.rollback(None, "2 is bad")
    assert state() == (3, 2, None, True)


@pytest.mark.usefixtures("v1")
def test_stable_and_pointer_are_restored_after_a_failed_promotion(models, world, publish, deploy, state):
    v2, before = publish(), world.stable
    world.broken_as_stable.add(v2.version)
    with pytest.raises(
        DeployError, match=r"version 2: .*Version 1 is the champion again\. Stable serves ver"
    ):
        deploy(v2)
    assert state() == (1, 1, None, True)
    assert world.stable is before
    assert history_entries(models)[-2:] == [("promote", 2, False), ("rollback", 1, False)]
    world.broken_as_stable.add(1)
    with pytest.raises(DeployError, match="could not be restored to version 1 and keeps"):
        deploy(v2)
    assert state() == (1, 1, None, True)


def test_first_candidate_serves_if_stable_cannot_run(world, publish, deploy, state):
    v1 = publish()
    world.broken_as_stable.add(v1.version)
    with pytest.raises(DeployError, match=r"nothing, as before\. Its candidate still serves clients"):
        deploy(v1)
    assert state() == (1, None, 1, False)
    with pytest.raises(DeployError, match="whose candidate still serves clients"):
        deploy(v1)
    assert state() == (1, None, 1, False)
    world.broken_as_stable.clear()
    assert deploy(v1).decision == "promote"
    assert state() == (1, 1, None, True)


def test_first_stable_with_wrong_predictions_is_deleted(world, publish, deploy, state, on_log):
    v1 = publish()
    on_log("promoted: ", lambda: world.wrong_images.add("serve:1"))
    with pytest.raises(DeployError, match=r"than evaluate.* Its candidate still serves"):
        deploy(v1)
    assert state() == (1, None, 1, False)


def test_another_version_replaces_a_first_version_that_cannot_run(world, publish, deploy, state, logged):
    world.broken_as_stable.add(1)
    with pytest.raises(DeployError):
        deploy(publish())
    world.outage_allowed = True  # its candidate is the only server
    assert deploy(publish()).decision == "promote"
    assert state() == (2, 2, None, True)
    assert any(line.endswith("Continuing with the rollout.") for line in logged)


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize("failures", [1, 99])
def test_stable_is_restored_while_the_store_is_unavailable(
    models, world, publish, deploy, state, monkeypatch, failures
):
    v2 = publish()
    world.broken_as_stable.add(v2.version)
    promote, failures_left = models.promote, [failures]

    def fail_rollback(*arguments, **options):
        if options.get("action") == "rollback" and failures_left[0]:
            failures_left[0] -= failures == 1
            raise UnreachableError("the store is unreachable")
        return promote(*arguments, **options)

    monkeypatch.setattr(models, "promote", fail_rollback)
    restored = failures == 1
    message = "is the champion again" if restored else "`modelyard models promote digits 1 -e ENV` moves it"
    with pytest.raises(DeployError, match=message):
        deploy(v2)
    assert state() == (1 if restored else 2, 1, None, True), "stable is not restored"


@pytest.mark.usefixtures("v1")
def test_stable_is_updated_to_a_pointer_that_moved(controller, world, publish, deploy, promote, state):
    v2, v3 = publish(), publish()
    world.broken_as_stable.add(v2.version)
    intercept(controller.platform, "reconcile", before=lambda: promote(v3))
    with pytest.raises(DeployError, match=r"moved the pointer\. Stable serves version 3"):
        deploy(v2)
    assert state() == (3, 3, None, True)


@pytest.mark.usefixtures("v1")
def test_store_fails_after_the_pointer_moved(models, publish, deploy, state, on_log, monkeypatch):
    v2, champion = publish(), models.champion

    def fail(_):
        raise StoreError("Cannot read the pointer.")

    on_log("promoted: ", lambda: monkeypatch.setattr(models, "champion", fail))
    with pytest.raises(StoreError, match=r"the pointer\. Version 2 is the champion; deploy it again"):
        deploy(v2)
    monkeypatch.setattr(models, "champion", champion)
    assert state() == (2, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_rollback_succeeds_if_the_candidate_cannot_be_deleted(controller, publish, deploy, state):
    deploy(publish())
    platform = controller.platform
    platform.claim("killed", platform.describe_servers(3, "d" * 64))

    def fail():
        raise ClusterError("The API server is unreachable.")

    intercept(platform, "withdraw", before=fail)
    with pytest.raises(ClusterError, match=r"is unreachable\. Version 1 is the champion; deploy it again"):
        controller.rollback(None, "it is bad")
    assert state() == (1, 1, None, True)


# Candidates of other rollouts ----------------------------------------------------------------------


def abandon_candidate(platform, pin):
    """Create the candidate of a rollout that was killed during its canary analysis."""
    servers = platform.describe_servers(pin.version, pin.digest)
    platform.claim("killed", servers)
    platform.verify(servers, lambda _: None, "killed")
    platform.route_to_candidate("killed")


@pytest.mark.parametrize("command", ["deploy", "overtaken", "rollback"])
def test_abandoned_candidate_is_deleted(controller, v1, publish, deploy, state, command):
    v2 = publish()
    deploy(v2)
    abandon_candidate(controller.platform, publish())
    assert state() == (2, 2, 3, False)
    if command == "deploy":
        deploy(v2)
    elif command == "overtaken":
        outcome = controller.roll_out(publish(), v1.version, "better")
        assert outcome.decision == "hold"
        assert [outcome.reason.count(text) for text in ("version 1", "version 2")] == [1, 1]
    else:
        controller.rollback(None, "bad")
    served = 1 if command == "rollback" else 2
    assert state() == (served, served, None, True)


def test_first_candidate_serves_while_its_rollout_is_repeated(controller, world, publish, deploy, state):
    v1 = publish()
    abandon_candidate(controller.platform, v1)
    controller.platform.image = "serve:2"
    world.wrong_images.add("serve:2")
    with pytest.raises(DeployError, match=r"than evaluate.* stable serves version 1 as before"):
        deploy(v1)  # World checks that clients always reach a verified server
    assert (state(), world.stable.image) == ((None, 1, None, True), "serve:1")
    world.wrong_images.clear()
    assert deploy(v1).decision == "promote"
    assert (state(), world.stable.image) == ((1, 1, None, True), "serve:2")


@pytest.mark.usefixtures("v1")
def test_rejected_candidate_is_not_promoted_manually(controller, publish, state, on_log):
    platform = controller.platform
    platform.claim("rollout", platform.describe_servers(2, publish().digest))
    on_log("verified: ", lambda: platform.withdraw("rollout"))
    with pytest.raises(DeployError, match="was removed by another command"):
        controller.promote_candidate("it is good")
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize("decision", ["promote", "hold"])
def test_rollout_whose_candidate_is_taken_over_returns_its_outcome(
    controller, new_controller, publish, deploy, state, on_log, decision
):
    v2 = publish()

    def take_over():
        controller.log = lambda _: None
        if decision == "promote":
            new_controller().promote_candidate("it is good")
        else:
            abandon_candidate(controller.platform, v2)

    on_log("canary: ", take_over)
    assert deploy(v2).decision == decision
    assert state() == ((2, 2, None, True) if decision == "promote" else (1, 1, 2, False))


@pytest.mark.usefixtures("v1")
@pytest.mark.parametrize("promoted", [False, True])
def test_abort_records_an_attempt_unless_promoted(controller, models, publish, promote, state, promoted):
    v2 = publish()
    controller.platform.claim("token", controller.platform.describe_servers(2, v2.digest))
    if promoted:
        promote(v2)
    assert controller.abort("manually") == 2
    assert models.history("digits")[-1].attempt is not promoted
    assert state() == (2 if promoted else 1, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_candidate_aborted_after_the_analysis_is_not_promoted(controller, publish, deploy, state, on_log):
    on_log("canary analysis: ", controller.platform.withdraw)
    assert deploy(publish()).decision == "hold"
    assert state() == (1, 1, None, True)


@pytest.mark.usefixtures("v1")
def test_stable_is_written_again_after_a_lost_race(controller, world, publish, deploy, state):
    platform = controller.platform

    def change_stable():  # as a rollout that read an older pointer
        world.stable = platform.describe_servers(3, "d" * 64)

    intercept(platform, "reconcile", before=change_stable)
    assert deploy(publish()).decision == "promote"
    assert state() == (2, 2, None, True)


@pytest.mark.usefixtures("v1")
def test_served_versions_are_recorded_before_and_after(controller, models, publish, deploy, on_log):
    recorded = []

    def record_served():
        recorded.append(models.served_versions("digits")[0].versions)

    on_log("verified: ", record_served)
    deploy(publish())
    assert recorded == [(1, 2)]
    (record,) = models.served_versions("digits")
    assert (record.platform, record.location, record.versions) == ("memory", "in-memory", (2,))
    on_log("rolled back: ", lambda: None)
    intercept(controller.platform, "reconcile", before=record_served)
    controller.rollback(None, "bad")
    assert recorded[-1] == (1, 2)
    assert models.served_versions("digits")[0].versions == (1,)


def test_rollout_writes_heartbeats_until_it_ends(controller, publish, deploy, on_log, monkeypatch):
    heartbeat_written = threading.Event()
    monkeypatch.setattr(base, "HEARTBEAT_SECONDS", 0.001)
    monkeypatch.setattr(controller.platform, "write_heartbeat", lambda _: heartbeat_written.set())
    on_log("canary: ", lambda: heartbeat_written.wait(120))
    deploy(publish())
    assert heartbeat_written.is_set()
    for thread in threading.enumerate():
        if thread.name == "heartbeat":
            thread.join(120)
            assert not thread.is_alive()


# Faults at every call ------------------------------------------------------------------------------

FAILURES = ["fails before", "fails after", "killed before", "killed after", "unreachable", "concurrent"]


@pytest.fixture
def faulty_controller(world, models, new_controller):
    """Return a function that creates the controller of a process with a fault."""

    def new(fault, image="serve:1"):
        platform = FaultyProxy(MemoryPlatform(world, image), fault, ClusterError)
        return new_controller(platform, FaultyProxy(models, fault, StoreError))

    return new


@pytest.mark.parametrize("change", ["another version", "another image", "first", "rollback"])
@pytest.mark.parametrize("failure", FAILURES)
def test_command_that_fails_at_any_call_succeeds_when_repeated(
    models, world, new_controller, faulty_controller, publish, state, change, failure
):
    """World checks after each change that clients reach a server, and only verified servers."""
    first, second, third = publish(), publish(), publish()
    image = "serve:2" if change == "another image" else "serve:1"
    at = 0
    while True:
        at += 1
        before = prepare(models, world, new_controller, change, first, second)
        new = new_controller(MemoryPlatform(world, image))
        fault = Fault(at, failure, lambda: new_controller().roll_out(third, None, "better"))
        execute(faulty_controller(fault, image), change, first, second)
        if fault.calls < at:
            break
        champion = models.champion("digits")
        failed = failure.startswith("fails") and change in ("another version", "rollback")
        if failed and champion.version == before.version:
            assert world.stable.matches(before), "stable is unchanged without a promotion"
        if failure == "concurrent" and champion.version == third.version:
            assert state() == (3, 3, None, True)
        else:
            execute(new, change, first, second, repeated=True)
            target = first if change in ("another image", "first", "rollback") else second
            assert state() == (target.version, target.version, None, True), (at, failure)
            assert world.stable.image == image
    assert at > 10


def prepare(models, world, new_controller, change, first, second):
    """Reset the world to the state before a command; return stable."""
    models._objects._data = {
        key: data for key, data in models._objects._data.items() if key.startswith("digits/versions/")
    }
    world.__init__()
    if change != "first":
        new_controller().roll_out(first, None, "better")
    if change == "rollback":
        new_controller().roll_out(second, None, "better")
    return world.stable


def execute(controller, change, first, second, repeated=False):
    """Execute a command in a process that may fail or be killed, unless the command is repeated."""
    try:
        if change == "rollback" and not repeated:
            controller.rollback(None, "bad")
        elif change == "rollback":
            controller.rollback(first.version, "bad")
        else:
            controller.roll_out(second if change == "another version" else first, None, "better")
    except (ClusterError, DeployError, StoreError, Killed):
        if repeated:
            raise


@pytest.mark.parametrize("killed_at", ["claim", "route_to_candidate", "promote", "reconcile"])
def test_rollout_continues_after_a_concurrent_rollout_is_killed_at_any_call(
    models, world, new_controller, faulty_controller, publish, state, killed_at
):
    """Another rollout takes over and is killed; the first rollout continues, and a third one succeeds."""
    first, second, third = publish(), publish(), publish()
    at, calls = 0, 1
    while calls >= at:
        at += 1
        prepare(models, world, new_controller, "another version", first, second)

        def run_concurrent_rollout():
            platform, store = MemoryPlatform(world), FaultyProxy(models, Fault(0, ""), StoreError)
            controller = new_controller(platform, store)
            owner = store if killed_at == "promote" else platform
            method = getattr(owner, killed_at)

            def call_and_die(*arguments, **options):
                method(*arguments, **options)
                platform.withdraw = platform.reconcile = platform.status = raise_killed
                raise Killed

            setattr(owner, killed_at, call_and_die)
            with pytest.raises(Killed):
                controller.roll_out(third, None, "better")

        fault = Fault(at, "concurrent", run_concurrent_rollout)
        execute(faulty_controller(fault), "another version", first, second)
        calls = fault.calls
        new_controller().roll_out(second, None, "better")
        assert state() == (2, 2, None, True), at


def raise_killed(*_, **__):
    raise Killed


@pytest.mark.usefixtures("v1")
def test_bug_in_the_analysis_withdraws_the_candidate(controller, publish, deploy, state, monkeypatch):
    monkeypatch.setattr(controller, "_analyze", lambda *_: {}["no such key"])
    with pytest.raises(KeyError):
        deploy(publish())
    assert state() == (1, 1, None, True)
