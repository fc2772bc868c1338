import pytest

from components.errors import TrainError
from components.train import accelerator

GPU = {"MODELYARD_ACCELERATOR": "gpu"}


def test_a_step_that_asks_for_no_accelerator_trains_on_what_is_there() -> None:
    assert accelerator.devices({}) == ["cpu:0"]


def test_a_missing_accelerator_ends_the_step_before_it_begins() -> None:
    with pytest.raises(TrainError, match="asks for a GPU, but Keras on tensorflow finds only cpu:0"):
        accelerator.devices(GPU)


def test_a_missing_accelerator_is_no_matter_when_the_environment_says_so() -> None:
    assert accelerator.devices({**GPU, "MODELYARD_ACCELERATOR_OPTIONAL": "1"}) == ["cpu:0"]
