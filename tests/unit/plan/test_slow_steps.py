"""What a probe of a few slow steps says, and what it does not."""

from typing import Any

import pytest

from modelyard.components.train.measured import Pace, Probed, Traced
from modelyard.components.train.settings import Training
from modelyard.pipelines.planning import planning
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.time import Duration, duration
from tests.unit.plan.test_render import shown

PLAN = Training(batch_size=100, epochs=5)
SINGLE = Pace(fixed=0.0, each=60.0, windows=1, low=1.0, high=1.0)


def taking(probed: Probed, data: Dataset, **paces: Pace) -> Duration:
    return duration(probed.model_copy(update=paces), 46.0, PLAN, data, rehearsed=False)


@pytest.mark.parametrize(
    ("name", "share", "overhead"),
    [("epoch", None, 0.010), ("compute", None, None), ("half", 0.1, None), ("input", 0.1, 0.010)],
)
def test_what_was_measured_a_few_times_is_not_compared(
    probed: Probed, data: Dataset, name: str, share: float | None, overhead: float | None
) -> None:
    found = taking(probed, data, **{name: SINGLE})
    assert found.input_share == (None if share is None else pytest.approx(share))
    assert found.overhead == (None if overhead is None else pytest.approx(overhead))
    assert found.epoch > 0


def test_one_window_of_many_is_enough(probed: Probed, data: Dataset) -> None:
    once = {"windows": 1, "count": 20}
    found = taking(probed, data, compute=probed.compute.model_copy(update=once))
    assert found.input_share == pytest.approx(0.1)


def test_a_batch_of_all_rows_is_compared_with_half_of_them(probed: Probed, data: Dataset) -> None:
    few = data.model_copy(update={"rows": {"train": 100, "validation": 20, "test": 30}})
    large = PLAN.model_copy(update={"batch_size": 5000})
    found = duration(probed, 46.0, large, few, rehearsed=False)
    assert found.overhead == pytest.approx(0.010)  # 14 ms for 50 rows, 18 ms for 100


def test_the_plan_says_nothing_of_what_was_not_compared(
    made: Any, monkeypatch: pytest.MonkeyPatch, traced: Traced, probed: Probed
) -> None:
    for compute, said in ((probed.compute, True), (SINGLE, False)):
        found = probed.model_copy(update={"compute": compute})
        monkeypatch.setattr(planning, "measure", lambda *_, found=found: (traced, found, 46.0))
        text = " ".join(shown(made()).split())
        assert "of that" in text
        assert ("waits for input" in text) is said
