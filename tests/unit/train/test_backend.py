import pytest

from modelyard.components.errors import TooLargeError, TrainError
from modelyard.components.train.backend import list_devices, tf, translate_out_of_memory

GPU = {"MODELYARD_ACCELERATOR": "gpu"}


def test_a_step_that_asks_for_no_accelerator_trains_on_what_is_there() -> None:
    assert list_devices({}) == ["cpu:0"]


def test_a_missing_accelerator_ends_the_step_before_it_begins() -> None:
    with pytest.raises(TrainError, match="asks for a GPU, but Keras on tensorflow finds only cpu:0"):
        list_devices(GPU)


def test_a_missing_accelerator_is_no_matter_when_the_environment_says_so() -> None:
    assert list_devices({**GPU, "MODELYARD_ACCELERATOR_OPTIONAL": "1"}) == ["cpu:0"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2 bytes."),  # as JAX says it
    ],
)
def test_what_has_no_room_is_named_so(error: Exception) -> None:
    with pytest.raises(TooLargeError, match="with a batch of 64 does not fit"), translate_out_of_memory(64):
        raise error


def test_what_is_raised_for_another_reason_stays_as_it_is() -> None:
    with pytest.raises(KeyError), translate_out_of_memory(64):
        raise KeyError("x")
