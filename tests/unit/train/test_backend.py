import pytest

from modelyard.components.errors import TooLargeError, TrainError
from modelyard.components.train.backend import list_devices, tf, translate_out_of_memory

GPU = {"MODELYARD_ACCELERATOR": "gpu"}


def test_without_a_required_accelerator_the_cpu_is_used() -> None:
    assert list_devices({}) == ["cpu:0"]


def test_a_missing_required_accelerator_is_an_error() -> None:
    with pytest.raises(TrainError, match="requires a GPU, but Keras on tensorflow finds only cpu:0"):
        list_devices(GPU)


def test_a_missing_optional_accelerator_is_replaced_by_the_cpu() -> None:
    assert list_devices({**GPU, "MODELYARD_ACCELERATOR_OPTIONAL": "1"}) == ["cpu:0"]


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        tf.errors.ResourceExhaustedError(None, None, "failed to allocate memory"),
        RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 2 bytes."),  # from JAX
    ],
)
def test_out_of_memory_becomes_too_large_error(error: Exception) -> None:
    with pytest.raises(TooLargeError, match="batch of 64"), translate_out_of_memory(64):
        raise error


def test_other_exceptions_are_not_translated() -> None:
    with pytest.raises(KeyError), translate_out_of_memory(64):
        raise KeyError("x")
