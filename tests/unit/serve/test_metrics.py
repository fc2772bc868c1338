from prometheus_client.parser import text_string_to_metric_families

from modelyard.components.serve.metrics import Metrics
from modelyard.components.serve.replies import Reply


def samples(metrics: Metrics) -> dict[tuple[str, tuple[str, ...]], float]:
    families = text_string_to_metric_families(metrics.render().body.decode())
    return {
        (sample.name, tuple(sorted(sample.labels.values()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_requests_are_counted_by_code_version_and_traffic():
    metrics = Metrics("digits", lambda: 3)
    metrics.version = 7
    metrics.count_request(7, Reply(b"", 200, examples=5, seconds=0.002), golden=False)
    metrics.count_request(7, Reply(b"", 400), golden=False)
    metrics.count_request(7, Reply(b"", 200, examples=1, seconds=0.002), golden=True)
    values = samples(metrics)
    assert values["modelyard_requests_total", ("200", "7", "client", "digits")] == 1
    assert values["modelyard_requests_total", ("400", "7", "client", "digits")] == 1
    assert values["modelyard_requests_total", ("200", "7", "digits", "golden")] == 1
    assert values["modelyard_predictions_total", ("7", "client", "digits")] == 5
    assert values["modelyard_requests_in_progress", ("digits",)] == 3
    assert values["modelyard_model_version", ("7", "digits")] == 1


def test_the_champion_and_the_served_version_are_metrics():
    metrics = Metrics("digits", lambda: 0)
    metrics.version = 7
    assert ("modelyard_champion_failures_total", ("digits",)) not in samples(metrics), "the server is pinned"
    metrics.count_poll(7, failed=False)
    assert samples(metrics)["modelyard_champion_failures_total", ("digits",)] == 0
    metrics.count_poll(8, failed=True)
    metrics.count_poll(None, failed=True)  # the store is unreachable
    values = samples(metrics)
    assert values["modelyard_champion_failures_total", ("digits",)] == 2
    assert values["modelyard_champion_version", ("8", "digits")] == 1
    assert values["modelyard_model_version", ("7", "digits")] == 1


def test_the_histogram_is_cumulative_and_includes_its_bounds():
    metrics = Metrics("digits", lambda: 0)
    for seconds in (0.0001, 0.0025, 0.003, 99.0):
        metrics.count_request(1, Reply(b"", 200, examples=1, seconds=seconds), golden=False)
    values = samples(metrics)
    buckets = {
        bound: values["modelyard_request_seconds_bucket", tuple(sorted((bound, "1", "client", "digits")))]
        for bound in ("0.0005", "0.0025", "0.005", "10.0", "+Inf")
    }
    assert buckets == {"0.0005": 1, "0.0025": 2, "0.005": 3, "10.0": 3, "+Inf": 4}
    assert values["modelyard_request_seconds_count", ("1", "client", "digits")] == 4
    assert values["modelyard_request_seconds_sum", ("1", "client", "digits")] == 99.0056


def test_only_executed_or_golden_requests_are_failures():
    metrics = Metrics("digits", lambda: 0)
    metrics.count_request(1, Reply(b"", 500, seconds=0.1), golden=False)  # the model raised an error
    metrics.count_request(1, Reply(b"", 500), golden=False)  # a client's input led to NaN
    metrics.count_request(1, Reply(b"", 500), golden=True)
    for code in (400, 408, 413, 499, 503, 504):
        metrics.count_request(1, Reply(b"", code), golden=False)
    values = samples(metrics)
    assert values["modelyard_failures_total", ("1", "client", "digits")] == 1
    assert values["modelyard_failures_total", ("1", "digits", "golden")] == 1
    assert values["modelyard_request_seconds_count", ("1", "client", "digits")] == 1
