import re

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import find_class_folders


def test_class_folders_are_one_split_with_the_classes_in_order_of_name() -> None:
    found = find_class_folders(["dogs/b.png", "cats/a.png", "Zebras/c.png"], ["dogs", "cats", "Zebras"])
    assert found.classes == ("Zebras", "cats", "dogs")
    assert found.splits == ("all",)
    assert found.target("dogs/b.png") == ("all", 2)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Train", "Valid", "TEST"), ("training", "validation", "testing")],
)
def test_split_folders_are_the_splits(train, validation, test) -> None:
    names = [f"{split}/{name}/1.png" for split in (test, validation, train) for name in ("cat", "dog")]
    found = find_class_folders(names, [])
    assert set(found.splits) == {"train", "test", "validation"}
    assert found.classes == ("cat", "dog")
    assert found.target(f"{validation}/dog/1.png") == ("validation", 1)


def test_one_folder_around_all_of_it_is_looked_through() -> None:
    found = find_class_folders(["flowers/rose/1.png", "flowers/tulip/1.png"], ["flowers", "flowers/rose"])
    assert found.classes == ("rose", "tulip")
    assert found.target("flowers/tulip/1.png") == ("all", 1)
    found = find_class_folders(["pets/train/cat/1.png", "pets/test/cat/1.png"], [])
    assert found.target("pets/test/cat/1.png") == ("test", 0)


def test_a_split_alone_is_a_split_and_not_a_folder_around_the_classes() -> None:
    assert find_class_folders(["train/cat/1.png", "train/dog/1.png"], []).splits == ("train",)


def test_a_class_may_be_called_train() -> None:
    found = find_class_folders(["train/1.png", "plane/1.png", "test/2.png"], [])
    assert found.classes == ("plane", "test", "train")
    assert found.splits == ("all",)


def test_folders_in_a_class_belong_to_it_and_what_lies_beside_the_classes_is_left_out() -> None:
    names = ["pets/cats/1.png", "pets/cats/old/2", "pets/dogs/a/b/1.png", "pets/dogs/a/c/1.png"]
    beside = ["README", "pets/labels.csv", "pets/annotations/cats/1.xml"]
    found = find_class_folders(names + beside, [])
    assert found.classes == ("cats", "dogs")
    assert [found.target(name) for name in names + beside] == [("all", 0)] * 2 + [("all", 1)] * 2 + [None] * 3
    assert "README, pets/annotations/cats/1.xml, pets/labels.csv are outside of the class folders" in found.notes[0]
    assert found.notes[1].startswith("3 files are in subfolders")


@pytest.mark.parametrize(
    ("pictures", "folders", "said"),
    [
        ([], ["cats"], "no images"),
        (["cats/1.png", "1.jpg", "README"], [], "'1.jpg' is not in a class folder"),
        (["train/cats/1.png", "extra/cats/1.png"], [], "'extra' is none of train"),
        (["train/cats/1.png", "unlabeled/1.png"], [], "'unlabeled' is none of train"),
        (["my_train/cats/1.png", "my_test/cats/1.png"], [], "'my_train' is none of train"),
        (["train/cats/1.png", "test/1.png"], [], "'test/1.png' is not in a class folder"),
        (["cats/1.png"], ["cats", "dogs"], "'dogs' has no images"),
        (["train/cats/1.png", "test/cats/1.png", "test/emus/1.png"], [], "'train/emus' has no images"),
        (["train/cats/1.png", "test/cats/1.png"], ["val"], "'val/cats' has no images"),
        (["val/cats/1.png", "validation/cats/1.png", "train/cats/1.png"], [], "two of which are the same split"),
    ],
)
def test_what_is_no_such_layout_is_refused_by_name(pictures, folders, said) -> None:
    with pytest.raises(DataError, match=re.escape(said)):
        find_class_folders(pictures, folders)


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
        found = find_class_folders(list(random.permutation(names)), [])
        assert found.classes == tuple(classes)
        for name in names:
            split, label = found.target(name)
            assert f"/{classes[label]}/" in f"/{name}"
            assert split == ("all" if not splits else {"val": "validation"}.get(name.split("/")[-3], split))
