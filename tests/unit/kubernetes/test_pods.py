"""What real pods' states mean in plain words."""

import pytest

from modelyard.components.kubernetes import pods


@pytest.mark.parametrize(
    ("name", "reason", "patience", "words"),
    [
        (
            "unschedulable",
            "Unschedulable",
            60,
            ["asks for 64 cores and 1 GiB of memory", "1 Insufficient cpu."],
        ),
        ("image-not-found", "ImagePull", 0, ["Image modelyard/serve:absent", "absent: not found."]),
        ("root-image", "CreateContainerConfigError", 0, ["image will run as root. Correct"]),
        ("out-of-memory", "OOMKilled", 0, ["its limit is 64 MiB. Give it more memory"]),
        ("crash-loop", "CrashLoopBackOff", None, ["exit code 8", "cannot be loaded by ONNX Runtime."]),
    ],
)
def test_troubles(recorded, node, name, reason, patience, words):
    seen = recorded(name)
    trouble = pods.trouble(seen["pod"], seen["events"], [node])
    assert trouble
    assert (trouble.reason, trouble.patience) == (reason, patience)
    for word in (seen["pod"]["metadata"]["name"], *words):
        assert word in trouble.message
    assert "\n" not in trouble.message
    assert ".." not in trouble.message


def test_a_pod_that_only_needs_time_has_no_trouble(recorded):
    seen = recorded("unready")
    assert pods.trouble(seen["pod"], seen["events"]) is None
    assert not pods.ready(seen["pod"])
    why = pods.unready(seen["pod"], seen["events"], 5)
    assert "not ready within 5 s: Startup probe failed" in why.message
    assert "connection refused" in why.message


def test_memory_names_what_was_seen(recorded):
    trouble = pods.trouble(recorded("out-of-memory")["pod"], used=61 * 2**20)
    assert trouble
    assert "last seen to use 61 MiB" in trouble.message


def test_a_crash_is_counted_while_its_container_is_still_down(recorded):
    pod = recorded("out-of-memory")["pod"]  # restarted twice, and terminated again
    assert pods.restarts(pod) == 3
    pod["status"]["containerStatuses"][0]["state"] = {"running": {}}
    assert pods.restarts(pod) == 2


def test_a_registry_that_is_away_for_a_moment_may_come_back(recorded):
    pod = recorded("image-not-found")["pod"]
    waiting = pod["status"]["containerStatuses"][0]["state"]["waiting"]
    waiting["message"] = "rpc error: code = Unavailable desc = dial tcp: connection refused"
    trouble = pods.trouble(pod)
    assert trouble
    assert trouble.patience is None


def test_a_server_that_ended_as_it_should_is_no_trouble(recorded):
    pod = recorded("crash-loop")["pod"]
    status = pod["status"]["containerStatuses"][0]
    status["state"], status["lastState"] = {"running": {}}, {"terminated": {"exitCode": 0}}
    assert pods.trouble(pod) is None


def test_an_evicted_pod_says_why(recorded):
    pod = recorded("unready")["pod"]
    pod["status"] = {
        "phase": "Failed",
        "reason": "Evicted",
        "message": "The node was low on resource: memory. ",
    }
    trouble = pods.trouble(pod)
    assert trouble
    assert "low on resource: memory." in trouble.message
