from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from modelyard.components import artifacts
from modelyard.components.artifacts import ImageFormat, Normalization, Schema, Statistics
from modelyard.components.errors import ConfigError, DataError
from modelyard.components.explain.explanation import step_lines
from modelyard.components.preprocess import split as splitting
from modelyard.components.preprocess.features import preprocess
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.preprocess.spec import PreprocessSpec
from modelyard.components.shards import Split, read_hashes


def run(raw: Path, **settings: object) -> Path:
    features = raw.parent / "features"
    preprocess(str(raw), PreprocessSpec(preparation=Preparation.model_validate(settings)), str(features))
    return features


def contents(features: Path, split: str) -> set[bytes]:
    part = Split(features, split)
    return {image.tobytes() for image in part.gather(np.arange(len(part)))}


def test_each_example_is_in_one_split_with_its_label(raw, images) -> None:
    examples, labels = images(600)
    features = run(raw({"all": (examples, labels, [f"{image.tobytes()!r}.png" for image in examples])}))
    labels_by_image = {image.tobytes(): label for image, label in zip(examples, labels, strict=True)}
    count = 0
    for split, size in artifacts.read(features / "schema.json", Schema).splits.items():
        part = Split(features, split)
        assert len(part) == size
        for image, label in zip(part.gather(np.arange(size)), part.targets, strict=True):
            assert labels_by_image.pop(image.tobytes()) == label
            count += 1
    assert count == 600
    test = Split(features, "test")
    all_indices = np.arange(len(test))
    assert test.names(all_indices) == [f"{image.tobytes()!r}.png" for image in test.gather(all_indices)]
    assert 90 < len(test) < 150  # a fifth of 600
    assert 25 < len(Split(features, "validation")) < 75  # a tenth of the rest


def test_source_splits_are_used_and_numbers_are_exact(raw, images) -> None:
    train, test = images(300), images(60, seed=1)
    features = run(raw({"train": train, "test": test}), validation=50)
    assert contents(features, "test") == {image.tobytes() for image in test[0]}
    assert len(Split(features, "validation")) == 50
    assert len(Split(features, "train")) == 250


def test_a_validation_split_of_the_source_is_used(raw, images) -> None:
    validation = images(30, seed=2)
    splits = {"train": images(90), "validation": validation, "test": images(30, seed=1)}
    features = run(raw(splits), validation=5)
    assert contents(features, "validation") == {image.tobytes() for image in validation[0]}
    assert len(Split(features, "train")) == 90


@pytest.mark.parametrize("names", [("all",), ("train", "test")])
def test_validation_on_the_test_split_uses_the_same_examples(raw, images, names) -> None:
    features = run(raw({name: images(90, seed) for seed, name in enumerate(names)}), validation="test")
    assert contents(features, "validation") == contents(features, "test") != set()
    assert not contents(features, "train") & contents(features, "test")


def test_duplicates_and_leakage_are_counted_and_logged(raw, images, capsys) -> None:
    examples, labels = images(90)
    train = np.concatenate([examples, examples[:4]]), np.concatenate([labels, labels[:4]])
    test_examples, test_labels = images(30, seed=1)
    test = np.concatenate([test_examples, examples[:7]]), np.concatenate([test_labels, labels[:7]])
    features = run(raw({"train": train, "test": test}), validation=1)
    statistics = artifacts.read(features / "statistics.json", Statistics)
    leaked_validation = contents(features, "validation") & {image.tobytes() for image in examples[:7]}
    assert statistics.duplicates.count == 11
    assert statistics.duplicates.origins[0] == "row 0 of train and row 90 of train"
    assert statistics.leakage.count == 7 - len(leaked_validation)
    lines = list(step_lines(capsys.readouterr().out.splitlines()))  # as `runs logs` prints them
    assert [line.split()[3] for line in lines[:-1]] == ["11", str(7 - len(leaked_validation))]
    with pytest.raises(
        DataError, match=r"such as row 0 of train and row 30 of test; .*data.fail_on has leakage"
    ):
        run(features.parent / "raw", validation=1, fail_on=["leakage"])
    assert sum(statistics.targets["test"]["examples"]) == 37


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_standardize_uses_training_examples_per_channel(raw, images, dtype) -> None:
    examples, labels = images(900)
    examples[..., 1] = 7
    examples = examples.astype(dtype)
    features = run(raw({"all": (examples, labels)}), normalize="standardize")
    train = Split(features, "train")
    expected = train.gather(np.arange(len(train))).astype(np.float64)
    normalization = artifacts.read(features / "normalization.json", Normalization)
    np.testing.assert_allclose(normalization.mean, expected.mean(axis=(0, 1, 2)))
    deviation = expected.std(axis=(0, 1, 2))
    np.testing.assert_allclose(normalization.scale, [deviation[0], 1.0, deviation[2]])


@pytest.mark.parametrize(("normalize", "scale"), [("scale", 16.0), ("scale", 1e6), ("none", 1.0)])
def test_normalize_scale_divides_and_none_does_not(raw, images, capsys, normalize, scale) -> None:
    features = run(raw({"all": images(90)}), normalize=normalize, scale=scale)
    normalization = artifacts.read(features / "normalization.json", Normalization)
    assert (normalization.mean, normalization.scale) == ((0.0,), (scale,))
    assert ("check data.scale" in capsys.readouterr().out) == (scale == 1e6)


def test_images_from_files_are_divided_by_255(raw, images) -> None:
    folder = raw({"all": images(90)})
    schema = artifacts.read(folder / "schema.json", Schema)
    form = ImageFormat(height=4, width=4, channels=3, resize="exact")
    artifacts.write(folder / "schema.json", schema.model_copy(update={"image": form}))
    assert artifacts.read(run(folder) / "normalization.json", Normalization).scale == (255,)


def test_targets_are_scaled_by_the_training_examples(raw) -> None:
    random = np.random.default_rng(0)
    examples, targets = random.normal(size=(300, 3)).astype(np.float32), random.normal(500, 20, 300)
    features = run(raw({"all": (examples, targets)}, classes=("price",), problem="regression"))
    train = Split(features, "train").targets.astype(np.float64)
    normalization = artifacts.read(features / "normalization.json", Normalization)
    assert normalization.target_mean == (pytest.approx(train.mean()),)
    assert normalization.target_scale == (pytest.approx(train.std()),)
    statistics = artifacts.read(features / "statistics.json", Statistics).targets["train"]
    assert statistics["median"] == pytest.approx(np.median(train))
    assert Split(features, "test").targets.dtype == np.float32


def assert_data_error(raw: Path, *parts: str, **settings: object) -> None:
    with pytest.raises(DataError) as error:
        run(raw, **settings)
    for part in parts:
        assert part in str(error.value)
    assert sorted(path.name for path in raw.parent.iterdir()) == ["raw"]


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_out_of_range_is_refused(raw, images, label) -> None:
    examples, labels = images(60)
    labels[41] = label
    assert_data_error(
        raw({"train": (examples, labels)}), "Example 41 of train", f"label {label}", "Correct the label"
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinite_values_are_refused(raw, value) -> None:
    examples = np.zeros((60, 5), np.float32)
    examples[33, 2] = value
    assert_data_error(
        raw({"all": (examples, np.arange(60) % 3)}),
        "Example 33 of all",
        str(value),
        "[2]",
        "Remove the example",
    )


def test_an_empty_dataset_is_refused(raw, images) -> None:
    assert_data_error(raw({"all": images(0)}), "no examples", "data.source")


def test_an_empty_split_of_the_source_is_refused(raw, images) -> None:
    assert_data_error(
        raw({"train": images(60), "test": images(0)}), "split test has 0 examples", "Add examples"
    )


@pytest.mark.parametrize("classes", [("cat", "dog", "emu"), ("cat",)], ids=["data", "schema"])
def test_a_single_class_is_refused(raw, images, classes) -> None:
    examples, labels = images(60)
    assert_data_error(raw({"all": (examples, labels * 0)}, classes=classes), "'cat'", "second class")


def test_a_class_without_training_examples_is_refused(raw, images) -> None:
    examples, labels = images(60)
    assert_data_error(
        raw({"all": (examples, labels % 2)}), "'emu'", "label 2", "no training examples", "remove the class"
    )


def test_a_split_size_that_leaves_another_split_empty_is_refused(raw, images) -> None:
    folder = raw({"train": images(60), "test": images(30, 1)})
    assert_data_error(folder, "split train has 0", "data.validation", validation=60)
    assert_data_error(folder, "split validation has 0", "data.validation", validation=1e-9)


def test_a_split_that_has_only_duplicates_is_refused(raw, images) -> None:
    examples, labels = images(3)
    same = np.repeat(examples, 20, axis=0), np.repeat(labels, 20)
    assert_data_error(
        raw({"train": same, "test": same}), "117 duplicates", "such as row", "remove duplicates"
    )


def test_shards_that_do_not_match_the_schema_are_refused(raw, images) -> None:
    folder = raw({"all": images(60)})
    schema = artifacts.read(folder / "schema.json", Schema)
    for change, word in (
        ({"shape": (8, 8, 1)}, "(8, 8, 1)"),
        ({"dtype": "float32"}, "float32"),
        ({"splits": {"all": 61}}, "61"),
        ({"splits": {"everything": 60}}, "everything"),
    ):
        artifacts.write(folder / "schema.json", schema.model_copy(update=change))
        assert_data_error(folder, word)


def test_a_truncated_shard_is_refused(raw, images) -> None:
    folder = raw({"all": images(60)})
    shard = next(folder.glob("all-*-of-00001.npy"))
    shard.write_bytes(shard.read_bytes()[:200])
    assert_data_error(folder, "split all", "Ingest the source again")


@pytest.mark.parametrize("names", [("all",), ("train", "test")])
def test_features_have_the_hashes_and_origins_of_examples(raw, images, names) -> None:
    sources = {name: images(90, seed) for seed, name in enumerate(names)}
    features = run(raw(sources))
    hashes, test_index = read_hashes(features)
    for split, expected in (("train", hashes), ("test", np.sort(test_index.hashes))):
        part = Split(features, split)
        example_hashes = splitting.hash_examples(part.gather(np.arange(len(part))))[:, 0]
        assert np.sort(example_hashes).tolist() == expected.tolist()
    first = Split(features, "test").gather(np.array([0]))[0]
    number, name = test_index.origin(0).removeprefix("row ").split(" of ")
    np.testing.assert_array_equal(sources[name][0][int(number)], first)


@pytest.mark.parametrize(
    ("field", "key"), [("named_slices", "gate"), ("weighted_slices", "training.class_weights")]
)
def test_an_unknown_class_in_the_gate_or_the_class_weights_is_refused(
    raw, images, tmp_path, field, key
) -> None:
    source = raw({"all": images(90)})
    for name, message in (("dogs", "Did you mean 'dog'"), ("x", "The classes are cat, dog, emu.")):
        spec = PreprocessSpec(preparation=Preparation(), **{field: (name,)})
        with pytest.raises(ConfigError, match=f"{key} .*{message}"):
            preprocess(str(source), spec, "x")
    spec = PreprocessSpec(preparation=Preparation(), **{field: ("dog",)})
    preprocess(str(source), spec, str(tmp_path / "features"))


@pytest.mark.parametrize("amount", [0, -3, 0.0, 1.0, 1.5])
def test_an_invalid_split_size_is_refused(amount) -> None:
    with pytest.raises(ValidationError, match=str(amount)):
        Preparation(test=amount)


def test_conflicting_labels_are_counted_or_refused(raw, images) -> None:
    examples, labels = images(90)
    conflicting = np.concatenate([examples, examples[:3]]), np.concatenate([labels, labels[:3] * 0])
    source = raw({"all": conflicting})
    statistics = artifacts.read(run(source) / "statistics.json", Statistics)
    assert statistics.conflicting_labels.count == 2
    assert statistics.conflicting_labels.origins[0] == "row 1 of all and row 91 of all"
    assert statistics.leakage.count == 0
    with pytest.raises(DataError, match=r"row 1 of all.*data\.fail_on"):
        run(source, fail_on=["leakage", "conflicting_labels"])


@pytest.mark.parametrize(
    ("low", "high", "dtype", "scale"),
    [
        (0, 1, np.float32, 1),
        (-1, 1, np.float32, 1),
        (0, 250, np.float32, 255),
        (0, 16, np.uint8, 16),
        (0, 255, np.uint8, 255),
        (0, 60000, np.float32, 65535),
        (0, 4095, np.float32, 4095),
        (-3, 5, np.float32, 5),
    ],
)
def test_the_default_scale_depends_on_the_range_of_values(raw, low, high, dtype, scale) -> None:
    examples = np.random.default_rng(0).uniform(low, high, (90, 16)).astype(dtype)
    examples[:, :2] = low, high
    features = run(raw({"all": (examples, np.arange(90) % 3)}))
    assert artifacts.read(features / "normalization.json", Normalization).scale == (scale,)
    assert f"divided by {scale}" in artifacts.read(features / "statistics.json", Statistics).scaling
