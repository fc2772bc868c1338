"""What can go wrong is said as it is with these settings."""

from typing import Any

import pytest

NO_CHECKPOINTS = "training.checkpoint_every=0"


def about(plan: Any, words: str) -> list[Any]:
    return [one for one in plan.risks if words in one.what]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (("training.epochs=900",), "goes on from its last checkpoint"),
        (("training.epochs=900", NO_CHECKPOINTS), "begins again from its start: there are no checkpoints"),
        (("training.epochs=1",), "begins again from its start: it is over before the first checkpoint"),
    ],
)
def test_what_is_lost_when_training_is_cut_off(made: Any, settings: tuple[str, ...], said: str) -> None:
    (risk,) = about(made(settings=settings), "the training is cut off")
    assert said in risk.what
    assert "training.checkpoint_every" in risk.lowers


def test_a_checkpoint_that_the_pod_has_no_room_for(made: Any) -> None:
    """Weights and the optimizer's state of the model take 12 MB."""
    small = "environment.defaults.ephemeral_storage=10Mi"
    assert not about(made("gke"), "in the pod's /tmp")
    (risk,) = about(made("gke", settings=("training.epochs=900", small)), "in the pod's /tmp")
    assert "a checkpoint takes 12 MB in the pod's /tmp, which may have 10Mi" in risk.what
