"""What is read from a real server's metrics."""

from collections import Counter

from modelyard.components.deploy.traffic import Counts, Tally, read
from modelyard.components.serve.metrics import Metrics


def page(*answers):
    """Return the metrics of a server that answered (code, golden) each in half a second."""
    metrics = Metrics("m", lambda: 0)
    metrics.version = 7
    for code, golden in answers:
        metrics.answered(7, code, golden, 0.5, 1)
    return metrics.page().body.decode()


def test_requests_are_counted_by_who_asked_and_what_came_of_them():
    answers = (
        [(200, False)] * 3 + [(200, True)] * 2 + [(503, False), (500, True)] + [(404, False), (499, False)]
    )
    reading = read(page(*answers))
    counts = reading.counts
    assert Counter(client=counts.client, golden=counts.golden, failed=counts.failed) == Counter(
        client=4, golden=3, failed=2
    )
    assert (counts.answers, counts.latency) == (9, 0.5)
    assert reading.memory > 2**20


def test_a_server_that_nobody_asked():
    assert read(page()).counts == Counts()
    assert Counts().latency == 0.0


def test_a_tally_begins_with_what_was_there_and_counts_newcomers_from_their_start():
    tally = Tally({"old": Counts(client=10, answers=10, seconds=1.0)})
    tally.note("old", Counts(client=12, answers=12, seconds=2.0))
    tally.note("new", Counts(client=5, failed=1, answers=5, seconds=0.5))
    tally.note("new", Counts(client=6, failed=1, answers=6, seconds=0.5))
    assert tally.total() == Counts(client=8, failed=1, answers=8, seconds=1.5)
