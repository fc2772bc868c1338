import numpy as np

from modelyard.components.preprocess import split
from modelyard.components.preprocess.settings import Preparation


def numbers(count: int) -> np.ndarray:
    return split.words(np.arange(count, dtype=np.int64).reshape(-1, 1))


def test_a_share_moves_no_example_when_the_data_grows_or_is_shuffled() -> None:
    few, many = numbers(1000), numbers(3000)
    before = split.place({"all": few}, Preparation())["all"]
    after = split.place({"all": many[::-1]}, Preparation())["all"]
    for name, mask in before.items():
        np.testing.assert_array_equal(mask, after[name][::-1][:1000])


def test_the_choices_of_test_and_validation_are_independent() -> None:
    found = numbers(20000)
    test, validation = split.chosen(found[:, 0], 0.5), split.chosen(found[:, 1], 0.5)
    assert 0.48 < validation[test].mean() < 0.52


def test_identical_examples_stay_together() -> None:
    found = np.repeat(numbers(100), 3, axis=0)
    for mask in split.place({"all": found}, Preparation(test=10, validation=10))["all"].values():
        assert (mask.reshape(100, 3).all(axis=1) == mask.reshape(100, 3).any(axis=1)).all()


def test_a_number_takes_exactly_that_many_distinct_rows() -> None:
    assert split.chosen(numbers(500)[:, 0], 37).sum() == 37
