import numpy as np

from modelyard.components.preprocess import split
from modelyard.components.preprocess.settings import Preparation


def hashes(count: int) -> np.ndarray:
    return split.hash_examples(np.arange(count, dtype=np.int64).reshape(-1, 1))


def test_growing_or_shuffling_the_data_moves_no_example() -> None:
    original, grown = hashes(1000), hashes(3000)
    before = split.assign_splits({"all": original}, Preparation())["all"]
    after = split.assign_splits({"all": grown[::-1]}, Preparation())["all"]
    for name, mask in before.items():
        np.testing.assert_array_equal(mask, after[name][::-1][:1000])


def test_test_and_validation_splits_are_independent() -> None:
    example_hashes = hashes(20000)
    test, validation = (
        split.select_amount(example_hashes[:, 0], 0.5),
        split.select_amount(example_hashes[:, 1], 0.5),
    )
    assert 0.48 < validation[test].mean() < 0.52


def test_identical_examples_are_in_one_split() -> None:
    example_hashes = np.repeat(hashes(100), 3, axis=0)
    for mask in split.assign_splits({"all": example_hashes}, Preparation(test=10, validation=10))[
        "all"
    ].values():
        assert (mask.reshape(100, 3).all(axis=1) == mask.reshape(100, 3).any(axis=1)).all()


def test_a_number_selects_that_many_distinct_examples() -> None:
    assert split.select_amount(hashes(500)[:, 0], 37).sum() == 37


def test_each_class_has_test_examples_and_growth_adds_no_training_example_to_test() -> None:
    random = np.random.default_rng(0)
    for _ in range(30):
        size = int(random.integers(1, 400))
        labels = np.repeat(np.arange(4), random.multinomial(size, (0.6, 0.2, 0.15, 0.05)))
        example_hashes = split.hash_examples(random.integers(0, 2**62, (len(labels), 1)))
        order = random.permutation(len(labels))
        train, present = np.zeros(len(labels), np.bool_), np.zeros(len(labels), np.bool_)
        for added in np.array_split(order, 5):
            present[added] = True
            by_split, strata = {"all": example_hashes[present]}, {"all": labels[present]}
            test = np.zeros(len(labels), np.bool_)
            test[present] = split.assign_splits(by_split, Preparation(), strata)["all"]["test"]
            class_sizes = np.bincount(labels[present], minlength=4)
            assert (np.bincount(labels[test], minlength=4) >= np.minimum(10, class_sizes // 2)).all()
            assert not (test & train).any()
            train = present & ~test & (class_sizes >= 20)[labels]


def test_an_example_with_two_labels_is_in_one_split() -> None:
    example_hashes = np.concatenate([hashes(300), hashes(40)])
    test = split.assign_splits({"all": example_hashes}, Preparation(test=5), {"all": np.arange(340) // 300})[
        "all"
    ]["test"]
    np.testing.assert_array_equal(test[:40], test[300:])
