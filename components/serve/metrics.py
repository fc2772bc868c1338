"""The metrics at /metrics, for Prometheus.

modelyard_requests_total{model,version,traffic,code}        prediction requests with a response
modelyard_request_seconds{model,version,traffic}            duration of executed requests
modelyard_failures_total{model,version,traffic}             executed requests that failed
modelyard_predictions_total{model,version,traffic}          predicted examples
modelyard_requests_in_progress{model}                       prediction requests in progress
modelyard_model_version{model,version}                      1 for the served version
modelyard_champion_version{model,version}                   1 for the champion
modelyard_champion_failures_total{model}                    polls after which the champion was not served

Only a server that follows the champion pointer has the last two metrics.

Refused, late and abandoned requests are not executed. A prediction that is not finite is a failure only for
golden requests, because a large enough input causes one with any model.

`traffic` is `golden` for requests with the header `x-modelyard-golden: 1`, which deploy sends, else `client`.
Code 499 is a client that disconnected before its response.

Requests are counted on the event loop without locks. Prometheus's client is imported at the first scrape, so
that the server starts faster.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING

from modelyard.components.serve.replies import Reply

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry
    from prometheus_client.core import Metric

LABELS = ("model", "version", "traffic")
BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


@dataclass
class Counts:
    """Counts of one version and kind of traffic; `buckets` are not cumulative."""

    codes: Counter[int] = field(default_factory=Counter)
    buckets: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    seconds: float = 0.0
    failures: int = 0
    examples: int = 0


class Metrics:
    """The metrics of one server; `version` is the served one.

    `in_progress` returns the number of prediction requests in progress.
    """

    def __init__(self, model: str, in_progress: Callable[[], int]) -> None:
        self.model, self.version, self.in_progress = model, 0, in_progress
        self.counts: dict[tuple[int, bool], Counts] = {}
        self.champion: int | None = None
        self.champion_failures: int | None = None
        self._registry: CollectorRegistry | None = None

    def count_request(self, version: int, reply: Reply, golden: bool) -> None:
        """Count one prediction request."""
        counts = self.counts.get((version, golden))
        if counts is None:
            counts = self.counts[version, golden] = Counts()
        counts.codes[reply.status] += 1
        counts.examples += reply.examples
        counts.failures += reply.status == 500 and (golden or reply.seconds is not None)
        if reply.seconds is not None:
            counts.buckets[bisect_left(BUCKETS, reply.seconds)] += 1
            counts.seconds += reply.seconds

    def count_poll(self, champion: int | None, *, failed: bool) -> None:
        """Count a poll of the champion pointer; `champion` is None if it cannot be read."""
        self.champion = champion or self.champion
        self.champion_failures = (self.champion_failures or 0) + failed

    def render(self) -> Reply:
        """Return the metrics, and memory, CPU time and files of the process, in Prometheus's text format."""
        from prometheus_client import CollectorRegistry, ProcessCollector
        from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

        if self._registry is None:
            self._registry = CollectorRegistry()
            self._registry.register(self)
            ProcessCollector(registry=self._registry)
        return Reply(generate_latest(self._registry), content_type=CONTENT_TYPE_LATEST.encode())

    def collect(self) -> "Iterator[Metric]":
        """Yield the metrics (the interface of prometheus_client)."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "modelyard_requests", "Answered prediction requests.", labels=(*LABELS, "code")
        )
        seconds = HistogramMetricFamily(
            "modelyard_request_seconds",
            "Duration of an executed prediction request in seconds.",
            labels=LABELS,
        )
        failures = CounterMetricFamily(
            "modelyard_failures", "Executed prediction requests that failed.", labels=LABELS
        )
        predictions = CounterMetricFamily("modelyard_predictions", "Predicted examples.", labels=LABELS)
        bounds = (*(str(bound) for bound in BUCKETS), "+Inf")
        for (version, golden), counts in self.counts.items():
            labels = [self.model, str(version), "golden" if golden else "client"]
            for code, count in counts.codes.items():
                requests.add_metric([*labels, str(code)], count)
            buckets = list(zip(bounds, accumulate(counts.buckets), strict=True))
            seconds.add_metric(labels, buckets, counts.seconds)
            failures.add_metric(labels, counts.failures)
            predictions.add_metric(labels, counts.examples)
        progress = GaugeMetricFamily(
            "modelyard_requests_in_progress", "Prediction requests in progress.", labels=["model"]
        )
        progress.add_metric([self.model], self.in_progress())
        model_version = GaugeMetricFamily(
            "modelyard_model_version", "1 for the served version.", labels=["model", "version"]
        )
        model_version.add_metric([self.model, str(self.version)], 1)
        yield from (requests, seconds, failures, predictions, progress, model_version)
        if self.champion_failures is not None:
            champion = GaugeMetricFamily(
                "modelyard_champion_version", "1 for the champion.", labels=["model", "version"]
            )
            if self.champion:
                champion.add_metric([self.model, str(self.champion)], 1)
            champion_failures = CounterMetricFamily(
                "modelyard_champion_failures",
                "Polls of the champion pointer after which the champion was not served.",
                labels=["model"],
            )
            champion_failures.add_metric([self.model], self.champion_failures)
            yield from (champion, champion_failures)
