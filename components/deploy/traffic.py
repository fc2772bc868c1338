"""What pods answered while they were watched, read from their /metrics."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from prometheus_client.parser import text_string_to_metric_families

REQUESTS = "modelyard_requests_total"
ANSWERS, SECONDS = "modelyard_request_seconds_count", "modelyard_request_seconds_sum"
MEMORY = "process_resident_memory_bytes"
REFUSALS = range(400, 500)  # what the client did wrong says nothing about a version


@dataclass(frozen=True)
class Counts:
    """What was answered: requests by who asked, how many failed (5xx), and the seconds of all answers.

    A request that the client got wrong (4xx) is an answer, and otherwise not counted.
    """

    client: int = 0
    golden: int = 0
    failed: int = 0
    answers: int = 0
    seconds: float = 0.0

    @property
    def requests(self) -> int:
        """All requests that say something about the version."""
        return self.client + self.golden

    @property
    def latency(self) -> float:
        """Mean seconds of an answer."""
        return self.seconds / self.answers if self.answers else 0.0

    def since(self, earlier: "Counts") -> "Counts":
        """Return what was answered after `earlier`."""
        return Counts(
            client=self.client - earlier.client,
            golden=self.golden - earlier.golden,
            failed=self.failed - earlier.failed,
            answers=self.answers - earlier.answers,
            seconds=self.seconds - earlier.seconds,
        )


@dataclass(frozen=True)
class Reading:
    """What one page of metrics says; `memory` is in bytes, 0 when it does not say."""

    counts: Counts
    memory: float


def read(page: str) -> Reading:
    """Return what a server's /metrics says.

    Raises:
        ValueError: it is not such a page.
    """
    numbers = {"client": 0, "golden": 0, "failed": 0, "answers": 0}
    seconds = memory = 0.0
    for family in text_string_to_metric_families(page):
        for sample in family.samples:
            if sample.name == REQUESTS and (code := int(sample.labels["code"])) not in REFUSALS:
                numbers[sample.labels["traffic"]] += int(sample.value)
                numbers["failed"] += int(sample.value) if code >= REFUSALS.stop else 0
            elif sample.name == ANSWERS:
                numbers["answers"] += int(sample.value)
            elif sample.name == SECONDS:
                seconds += sample.value
            elif sample.name == MEMORY:
                memory = sample.value
    return Reading(Counts(**numbers, seconds=seconds), memory)


@dataclass
class Tally:
    """What some pods answered since the tally began; a pod that came later counts from its start.

    A key stands for one run of one pod's container, whose counters only grow.
    """

    before: Mapping[str, Counts]
    latest: dict[str, Counts] = field(default_factory=dict)

    def note(self, key: str, counts: Counts) -> None:
        """Take the newest counts of a pod."""
        self.latest[key] = counts

    def total(self) -> Counts:
        """Return what was answered by all of them."""
        each = [counts.since(self.before.get(key, Counts())) for key, counts in self.latest.items()]
        return Counts(
            client=sum(one.client for one in each),
            golden=sum(one.golden for one in each),
            failed=sum(one.failed for one in each),
            answers=sum(one.answers for one in each),
            seconds=sum(one.seconds for one in each),
        )
