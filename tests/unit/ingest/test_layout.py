import re

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.layout import layout


def test_class_folders_are_one_split_with_the_classes_in_order_of_name() -> None:
    found = layout(["dogs/b.png", "cats/a.png", "Zebras/c.png"], ["dogs", "cats", "Zebras"])
    assert found.classes == ("Zebras", "cats", "dogs")
    assert found.splits == ("all",)
    assert found.place("dogs/b.png") == ("all", 2)


@pytest.mark.parametrize("validation", ["val", "validation"])
def test_split_folders_are_the_splits(validation) -> None:
    names = [f"{split}/{name}/1.png" for split in ("test", validation, "train") for name in ("cat", "dog")]
    found = layout(names, [])
    assert set(found.splits) == {"train", "test", "validation"}
    assert found.classes == ("cat", "dog")
    assert found.place(f"{validation}/dog/1.png") == ("validation", 1)


def test_one_folder_around_all_of_it_is_looked_through() -> None:
    found = layout(["flowers/rose/1.png", "flowers/tulip/1.png"], ["flowers", "flowers/rose"])
    assert found.classes == ("rose", "tulip")
    assert found.place("flowers/tulip/1.png") == ("all", 1)
    found = layout(["pets/train/cat/1.png", "pets/test/cat/1.png"], [])
    assert found.place("pets/test/cat/1.png") == ("test", 0)


def test_a_split_alone_is_a_split_and_not_a_folder_around_the_classes() -> None:
    assert layout(["train/cat/1.png", "train/dog/1.png"], []).splits == ("train",)


def test_a_class_may_be_called_train() -> None:
    found = layout(["train/1.png", "plane/1.png", "test/2.png"], [])
    assert found.classes == ("plane", "test", "train")
    assert found.splits == ("all",)


@pytest.mark.parametrize(
    ("pictures", "folders", "said"),
    [
        ([], ["cats"], "no pictures"),
        (["cats/1.png", "notes.txt"], [], "'notes.txt' does not lie in a class folder"),
        (["cats/1.png", "cats/old/2.png", "dogs/1.png"], [], "'cats/old/2.png' does not lie"),
        (["train/cats/1.png", "extra/cats/1.png"], [], "'train/cats/1.png' does not lie"),
        (["train/cats/1.png", "train/readme.md"], [], "'train/readme.md' does not lie"),
        (["cats/1.png"], ["cats", "dogs"], "'dogs' has no pictures"),
        (["train/cats/1.png", "test/cats/1.png", "test/emus/1.png"], [], "'train/emus' has no pictures"),
        (["train/cats/1.png", "test/cats/1.png"], ["val"], "'val/cats' has no pictures"),
        (["val/cats/1.png", "validation/cats/1.png", "train/cats/1.png"], [], "val and a folder validation"),
    ],
)
def test_what_is_no_such_layout_is_refused_by_name(pictures, folders, said) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        layout(pictures, folders)


def test_any_set_of_classes_and_splits_is_found_again() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        classes = sorted({f"class {number}" for number in random.integers(0, 30, random.integers(1, 9))})
        splits = [*random.permutation(["train", "test", "val"])[: random.integers(0, 4)]]
        around = ["data/"] * int(random.integers(2))
        names = [
            f"{''.join(around)}{split + '/' if split else ''}{name}/{number}.png"
            for split in splits or [""]
            for name in classes
            for number in range(random.integers(1, 4))
        ]
        found = layout(list(random.permutation(names)), [])
        assert found.classes == tuple(classes)
        for name in names:
            split, label = found.place(name)
            assert f"/{classes[label]}/" in f"/{name}"
            assert split == ("all" if not splits else {"val": "validation"}.get(name.split("/")[-3], split))
