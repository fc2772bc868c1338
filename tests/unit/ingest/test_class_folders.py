import re

import numpy as np
import pytest

from modelyard.components.errors import DataError
from modelyard.components.ingest.class_folders import find_class_folders


def test_class_folders_are_one_split_with_sorted_classes() -> None:
    result = find_class_folders(["dogs/b.png", "cats/a.png", "Zebras/c.png"], ["dogs", "cats", "Zebras"])
    assert result.names == ("Zebras", "cats", "dogs")
    assert result.splits == ("all",)
    assert result.split_target("dogs/b.png") == ("all", 2)


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [("train", "val", "test"), ("Train", "Valid", "TEST"), ("training", "validation", "testing")],
)
def test_split_folders_become_splits(train, validation, test) -> None:
    names = [f"{split}/{name}/1.png" for split in (test, validation, train) for name in ("cat", "dog")]
    result = find_class_folders(names, [])
    assert set(result.splits) == {"train", "test", "validation"}
    assert result.names == ("cat", "dog")
    assert result.split_target(f"{validation}/dog/1.png") == ("validation", 1)


def test_the_common_parent_of_all_class_folders_is_skipped() -> None:
    result = find_class_folders(["flowers/rose/1.png", "flowers/tulip/1.png"], ["flowers", "flowers/rose"])
    assert result.names == ("rose", "tulip")
    assert result.split_target("flowers/tulip/1.png") == ("all", 1)
    result = find_class_folders(["pets/train/cat/1.png", "pets/test/cat/1.png"], [])
    assert result.split_target("pets/test/cat/1.png") == ("test", 0)


def test_a_single_split_folder_is_a_split() -> None:
    assert find_class_folders(["train/cat/1.png", "train/dog/1.png"], []).splits == ("train",)


def test_subfolders_belong_to_the_class_and_other_files_are_ignored() -> None:
    names = ["pets/cats/1.png", "pets/cats/old/2", "pets/dogs/a/b/1.png", "pets/dogs/a/c/1.png"]
    other_files = ["README", "pets/labels.csv", "pets/annotations/cats/1.xml"]
    result = find_class_folders(names + other_files, [])
    assert result.names == ("cats", "dogs")
    labels = [("all", 0), ("all", 0), ("all", 1), ("all", 1)]
    assert [result.split_target(name) for name in names] == labels
    assert not any(result.split_target(name) for name in other_files)
    assert "README, pets/annotations/cats/1.xml, pets/labels.csv are outside" in result.notes[0]
    assert "3 files" in result.notes[1]


@pytest.mark.parametrize(
    ("files", "folders", "message"),
    [
        ([], ["cats"], "no images"),
        (["cats/1.png", "1.jpg", "README"], [], "'1.jpg' is not in a class folder"),
        (["train/cats/1.png", "extra/cats/1.png"], [], "'extra' is none of train"),
        (["train/cats/1.png", "unlabeled/1.png"], [], "'unlabeled' is none of train"),
        (["circle/1.png", "square/1.png", "train/1.png"], [], "'circle' is none of train"),
        (["train/1.png", "test/1.png"], [], "'test/1.png'"),
        (["train/1", "test/1"], [], "no class folders"),
        (["my_train/cats/1.png", "my_test/cats/1.png"], [], "'my_train' is none of train"),
        (["train/cats/1.png", "test/1.png"], [], "'test/1.png' is not in a class folder"),
        (["cats/1.png"], ["cats", "dogs"], "'dogs' has no images"),
        (["train/cats/1.png", "test/cats/1.png", "test/emus/1.png"], [], "'train/emus' has no images"),
        (["train/cats/1.png", "test/cats/1.png"], ["val"], "'val/cats' has no images"),
        (["val/cats/1.png", "validation/cats/1.png", "train/cats/1.png"], [], "are the same split"),
    ],
)
def test_invalid_class_folders_are_refused_with_a_name(files, folders, message) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        find_class_folders(files, folders)


def test_random_classes_and_splits_are_recognized() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        classes = sorted({f"class {number}" for number in random.integers(0, 30, random.integers(1, 9))})
        splits = [*random.permutation(["train", "test", "val"])[: random.integers(0, 4)]]
        prefix = "data/" * int(random.integers(2))
        names = [
            f"{prefix}{split + '/' if split else ''}{name}/{number}.png"
            for split in splits or [""]
            for name in classes
            for number in range(random.integers(1, 4))
        ]
        result = find_class_folders(list(random.permutation(names)), [])
        assert result.names == tuple(classes)
        for name in names:
            split, label = result.split_target(name)
            assert f"/{classes[label]}/" in f"/{name}"
            assert split == ("all" if not splits else {"val": "validation"}.get(name.split("/")[-3], split))
