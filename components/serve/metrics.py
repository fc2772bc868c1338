"""What Prometheus reads at /metrics.

modelyard_requests_total{model,version,code,traffic}        prediction requests that were answered
modelyard_request_seconds{model,version,traffic}            their time, from the head to the answer
modelyard_predictions_total{model,version,traffic}          examples that were predicted
modelyard_requests_in_progress{model}                       prediction requests being answered now
modelyard_model_version{model,version}                      1 for the version that is served

`traffic` is `golden` for requests with the header `x-modelyard-golden: 1`, which deploy sends, else `client`.
"""

from collections.abc import Callable
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from components.serve.replies import Reply

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class _Series(NamedTuple):
    """The series of one version, code and kind of traffic, looked up once."""

    requests: Counter
    seconds: Histogram
    predictions: Counter


class Metrics:
    """The metrics of one server.

    Args:
        model: the model's name.
        in_progress: says how many prediction requests are being answered.
    """

    def __init__(self, model: str, in_progress: Callable[[], int]) -> None:
        self._model = model
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        labels = ("model", "version", "traffic")
        self._requests = Counter(
            "modelyard_requests", "Prediction requests that were answered.", (*labels, "code"),
            registry=self._registry,
        )  # fmt: skip
        self._seconds = Histogram(
            "modelyard_request_seconds", "Seconds to answer a prediction request.", labels,
            buckets=BUCKETS, registry=self._registry,
        )  # fmt: skip
        self._predictions = Counter(
            "modelyard_predictions", "Examples that were predicted.", labels, registry=self._registry
        )
        self._version = Gauge(
            "modelyard_model_version", "1 for the version that is served.", ("model", "version"),
            registry=self._registry,
        )  # fmt: skip
        gauge = Gauge(
            "modelyard_requests_in_progress", "Prediction requests being answered now.", ("model",),
            registry=self._registry,
        )  # fmt: skip
        gauge.labels(model).set_function(in_progress)
        self._series: dict[tuple[str, int, bool], _Series] = {}

    def answered(self, version: str, code: int, golden: bool, seconds: float, rows: int) -> None:
        """Count one prediction request."""
        key = (version, code, golden)
        series = self._series.get(key)
        if series is None:
            series = self._series[key] = self._make(version, code, golden)
        series.requests.inc()
        series.seconds.observe(seconds)
        if rows:
            series.predictions.inc(rows)

    def serving(self, version: int) -> None:
        """Say which version is served from now on."""
        self._version.clear()
        self._version.labels(self._model, str(version)).set(1)

    def page(self) -> Reply:
        """Return all of it in Prometheus's text format."""
        return Reply(generate_latest(self._registry), kind=CONTENT_TYPE_LATEST.encode())

    def _make(self, version: str, code: int, golden: bool) -> _Series:
        labels = (self._model, version, "golden" if golden else "client")
        return _Series(
            self._requests.labels(*labels, str(code)),
            self._seconds.labels(*labels),
            self._predictions.labels(*labels),
        )
