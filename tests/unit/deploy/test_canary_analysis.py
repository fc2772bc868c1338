"""Canary analysis: reading metrics, comparing tracks, and problems of pods."""

import pytest

from modelyard.components.artifacts import Golden
from modelyard.components.deploy import canary_analysis
from modelyard.components.deploy.canary_analysis import failure_reason, summary
from modelyard.components.deploy.platforms import objects
from modelyard.components.deploy.platforms.base import RequestCounts
from modelyard.components.deploy.platforms.pods import _TrackWindow, count_since, read_metrics
from modelyard.components.deploy.settings import Rollout
from modelyard.components.deploy.verification import PinnedVersion
from modelyard.components.errors import DeployError
from modelyard.components.serve.metrics import Metrics
from modelyard.components.serve.replies import Reply

ROLLOUT = Rollout(min_requests=100, max_error_rate=0.02, max_latency_ratio=2.0, latency_margin=0.01)
PINNED = PinnedVersion(2, "d" * 64, Golden(problem="classification", instances=[[0]], predictions=[[1.0]]))


def request_counts(requests, seconds, failed=0):
    return RequestCounts(client=requests, failed=failed, seconds=requests * seconds)


@pytest.mark.parametrize(
    ("candidate", "stable", "part"),
    [
        (request_counts(100, 0.01), request_counts(900, 0.01), None),
        (request_counts(3, 0.01, failed=2), RequestCounts(), None),  # 2 % of min_requests may fail
        (request_counts(3, 0.01, failed=3), RequestCounts(), "3 of 3 requests failed, more than 2.00%"),
        (request_counts(1000, 0.01, failed=20), RequestCounts(), None),
        (request_counts(1000, 0.01, failed=21), RequestCounts(), "21 of 1,000"),
        (
            request_counts(100, 0.05),
            request_counts(900, 0.02),
            "50.0 ms and that of stable 20.0 ms; the ratio, 2.5, ",
        ),
        (request_counts(100, 0.04), request_counts(900, 0.02), None),  # the maximum ratio
        (request_counts(100, 0.009), request_counts(900, 0.0005), None),  # within latency_margin
        (request_counts(99, 9.0), request_counts(900, 0.02), None),  # too few requests
        (request_counts(100, 9.0), RequestCounts(), None),  # no stable
        (RequestCounts(client=60, golden=39, seconds=100.0), request_counts(900, 0.02), None),
        (RequestCounts(client=60, golden=40, seconds=100.0), request_counts(900, 0.02), "is 1000.0 ms"),
    ],
)
def test_candidate_fails_with_too_many_failures_or_too_high_latency(candidate, stable, part):
    reason = failure_reason(candidate, stable, ROLLOUT)
    assert (reason is None) if part is None else (part in (reason or ""))


def test_summary_has_requests_and_latency():
    counts = RequestCounts(client=60, golden=40, seconds=1.0)
    text = summary(counts, RequestCounts())
    assert all(part in text for part in ("60 client", "40 golden", "0 failed", "not compared")), text
    text = summary(counts, request_counts(900, 0.02))
    assert "10.0 ms" in text
    assert "stable: 20.0 ms" in text


def render_metrics(*replies):
    """Return the page /metrics of a server after replies (code, golden) that took 0.5 s each."""
    metrics = Metrics("m", lambda: 0)
    metrics.version = 7
    for code, golden in replies:
        executed = 0.5 if code in (200, 500) else None
        metrics.count_request(7, Reply(b"", code, seconds=executed), golden)
    return metrics.render().body.decode()


def test_requests_are_counted_by_sender_and_result():
    replies = (
        [(200, False)] * 3 + [(200, True)] * 2 + [(503, False), (500, True)] + [(404, False), (499, False)]
    )
    counts, memory = read_metrics(render_metrics(*replies))
    assert (counts.client, counts.golden, counts.failed) == (3, 3, 1)
    assert (counts.requests, counts.latency) == (6, 0.5)
    assert memory > 2**20
    assert read_metrics(render_metrics())[0] == RequestCounts()
    assert RequestCounts().latency == 0.0


def test_counts_exclude_earlier_requests_and_include_all_of_new_pods():
    before = {"old": RequestCounts(client=10, seconds=1.0)}
    now = {
        "old": RequestCounts(client=12, seconds=2.0),
        "new": RequestCounts(client=6, failed=1, seconds=0.5),
    }
    assert count_since(before, now) == RequestCounts(client=8, failed=1, seconds=1.5)


def analyze(platform, ready=1):
    counts = {"replicas": 1, "updatedReplicas": 1, "availableReplicas": ready}
    metadata = {"annotations": {objects.TOKEN_ANNOTATION: "token"}, "labels": {objects.VERSION_LABEL: "2"}}
    candidate = {"metadata": metadata, "spec": {}, "status": counts}
    platform.cluster.objects["Deployment digits-candidate"] = candidate
    window = platform.open_window("token")
    return canary_analysis.analyze("digits", PINNED, window, platform.rollout, platform.now, platform.sleep)


@pytest.mark.usefixtures("pod")
def test_earlier_restarts_do_not_count_in_the_analysis(platform, clock):
    assert "0 failed" in analyze(platform)
    platform.rollout = platform.rollout.model_copy(update={"bake_seconds": 60.0})
    start = clock.time
    analyze(platform)
    assert 60 <= clock.time - start < 90


def test_restart_during_the_analysis_fails(platform, cluster, pod):
    cluster.on_list = lambda: pod.set_running(restarts=3 if cluster.request_count else 2)
    with pytest.raises(DeployError, match="ended 3 times, last with exit code 8"):
        analyze(platform)


def test_out_of_memory_during_the_analysis_fails_at_once(platform, cluster, pod):
    pod.set_out_of_memory(restarts=2, ready=True)
    cluster.on_list = lambda: pod.set_out_of_memory(
        restarts=3 if cluster.request_count else 2, ready=not cluster.request_count
    )
    with pytest.raises(DeployError, match="was killed because it used too much memory"):
        analyze(platform)


@pytest.mark.usefixtures("pod")
@pytest.mark.parametrize("failure", ["unready", "silent"])
def test_unresponsive_candidate_fails_after_the_bake_time(platform, cluster, clock, failure):
    if failure == "silent":
        platform.rollout = platform.rollout.model_copy(update={"min_requests": 0})
        proxy_request = cluster.proxy_request
        cluster.proxy_request = lambda *sent: (504, b"") if cluster.request_count else proxy_request(*sent)
    with pytest.raises(DeployError, match="failed its canary analysis: it does not respond or is not ready"):
        analyze(platform, ready=failure != "unready")
    assert clock.time > canary_analysis.GRACE_SECONDS


@pytest.mark.usefixtures("pod")
def test_candidate_with_too_few_requests_fails(platform, cluster):
    proxy_request = cluster.proxy_request

    def lose_requests(server, *rest):
        cluster.request_count = 0
        return (502, b"no route") if server.kind == "Service" else proxy_request(server, *rest)

    cluster.proxy_request = lose_requests
    with pytest.raises(DeployError, match=r"received 0 of 3 requests .* The last error: .* 502: no route"):
        analyze(platform)


@pytest.mark.parametrize("reply", [(502, b"busy"), (200, b'modelyard_request_seconds_count{path="/"} 3.0\n')])
def test_requests_before_the_analysis_never_count(platform, cluster, pod, reply):
    """/metrics cannot be read when the window opens; the first counters that can be read are its start."""
    pod.json["metadata"]["labels"] |= {objects.TRACK_LABEL: "stable"}
    proxy_request = cluster.proxy_request
    cluster.proxy_request = lambda *_: reply
    window = _TrackWindow(platform, "stable")
    assert window.unresponsive
    cluster.proxy_request, cluster.request_count = proxy_request, 1000
    assert (window.read().client, window.read().client) == (0, 1)
