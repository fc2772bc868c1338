"""Our numbers in Prometheus's own words; imported when it asks for the first time."""

from collections.abc import Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector

from modelyard.components.serve.metrics import BUCKETS, Metrics

LABELS = ("model", "version", "traffic")
BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")
KIND = CONTENT_TYPE_LATEST.encode()


def registry(metrics: Metrics) -> CollectorRegistry:
    """Return a registry of these metrics and of the process's memory, time and files."""
    made = CollectorRegistry()
    made.register(_Ours(metrics))
    ProcessCollector(registry=made)
    return made


def text(collected: CollectorRegistry) -> bytes:
    """Return everything in the text format."""
    return generate_latest(collected)


class _Ours(Collector):
    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Metric]:
        """Yield the metrics."""
        yield from self._requests()
        model = self._metrics.model
        progress = GaugeMetricFamily(
            "modelyard_requests_in_progress", "Prediction requests being answered now.", labels=["model"]
        )
        progress.add_metric([model], self._metrics.in_progress())
        served = GaugeMetricFamily(
            "modelyard_model_version", "1 for the version that is served.", labels=["model", "version"]
        )
        served.add_metric([model, str(self._metrics.version)], 1)
        yield from (progress, served)

    def _requests(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "modelyard_requests", "Prediction requests that were answered.", labels=(*LABELS, "code")
        )
        seconds = HistogramMetricFamily(
            "modelyard_request_seconds", "Seconds to answer a prediction request.", labels=LABELS
        )
        predictions = CounterMetricFamily(
            "modelyard_predictions", "Examples that were predicted.", labels=LABELS
        )
        for (version, golden), seen in self._metrics.seen.items():
            labels = [self._metrics.model, str(version), "golden" if golden else "client"]
            for code, count in seen.codes.items():
                requests.add_metric([*labels, str(code)], count)
            buckets = list(zip(BOUNDS, accumulate(seen.buckets), strict=True))
            seconds.add_metric(labels, buckets, seen.seconds)
            predictions.add_metric(labels, seen.rows)
        yield from (requests, seconds, predictions)
