"""A probe of real steps, on features and without any."""

from pathlib import Path
from typing import Any

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import TooLargeError, TrainError
from modelyard.components.train import probe as probing
from modelyard.components.train import trace
from modelyard.components.train.data import Features
from modelyard.components.train.measured import Probed, Question, Trial
from modelyard.components.train.probe import Course, probe
from modelyard.components.train.settings import Code


@pytest.fixture
def question() -> Question:
    return Question(
        examples=Schema(shape=(8, 8, 1), dtype="uint8", classes=("cat", "dog", "emu"), splits={}),
        normalization=Normalization(deviation=(255.0,)),
        architecture={"filters": [4], "dense": [8]},
        training={"batch_size": 16},
        rows=600,
        validation=40,
    )


def plausible(found: Probed) -> None:
    assert found.steps == 38
    assert found.device == "cpu:0"
    assert 0 < found.epoch.seconds(38) < 60
    assert found.validation
    assert found.validation.seconds(3) > 0
    assert found.half
    assert 0 < found.export < found.inside
    assert found.opening + found.building + found.export + found.first_epoch < found.inside
    assert found.memory > 10**8
    assert found.traced.batch_size == 16


def test_rows_of_noise_do_where_there_are_none(question: Question, tmp_path: Path) -> None:
    found = probe(Trial(question=question, seconds=0.5), tmp_path)
    assert found.synthetic
    plausible(found)
    exported = sum(one.stat().st_size for one in (tmp_path / "model").rglob("*") if one.is_file())
    assert found.model_bytes == exported


def test_the_rows_of_the_run_are_read(question: Question, desk: Any, tmp_path: Path) -> None:
    features = desk.features(*desk.pictures(600), validation=40)
    found = probe(Trial(question=question, features=str(features), seconds=0.5), tmp_path)
    assert not found.synthetic
    plausible(found)


def test_a_batch_has_no_more_rows_than_there_are(question: Question, desk: Any, tmp_path: Path) -> None:
    large = question.model_copy(update={"training": {"batch_size": 5000}})
    features = desk.features(*desk.pictures(600), validation=40)
    found = probe(Trial(question=large, features=str(features), seconds=0.5), tmp_path)
    assert (found.steps, found.traced.batch_size) == (1, 600)
    course = Course(*course_of(large, features))
    assert len(course._chunk[0]) % 600 == 0


def course_of(question: Question, features: Path) -> tuple[Any, Features, Any]:
    network, plan = trace.compiled(question)
    return network, Features.read(features), plan


def test_where_steps_are_slow_not_all_have_a_turn(
    question: Question, desk: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "PATIENCE", 0.0)
    course = Course(*course_of(question, desk.features(*desk.pictures(600), validation=40)))
    course.warm()
    course.run(1e-9)
    assert course.epoch.pace().windows == course.compute.pace().windows == 1
    assert course.input.pace().each > 0
    assert course.half
    assert course.half.pace().each > 0


@pytest.mark.parametrize(("jit", "seconds"), [(False, 0.0), (True, 4.0)])
def test_the_last_batch_is_compiled_where_each_size_is(
    question: Question, desk: Any, monkeypatch: pytest.MonkeyPatch, jit: bool, seconds: float
) -> None:
    course = Course(*course_of(question, desk.features(*desk.pictures(600), validation=40)))
    course._network.jit_compile = jit
    compiled: set[int] = set()

    def fit(size: int, _: int) -> float:
        took = 1.0 if size in compiled else 5.0
        compiled.add(size)
        return took

    monkeypatch.setattr(course, "_fit_memory", fit)
    assert course._last_batch() == seconds
    assert compiled == ({8} if jit else set())  # 600 rows are 37 batches of 16, and 8


LATE = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

def fail():
    {raises}

@keras.saving.register_keras_serializable("late")
class Late(layers.Layer):
    def call(self, x):
        return x + tf.stop_gradient(tf.ensure_shape(tf.numpy_function(fail, [], tf.float32), ()))

    def compute_output_shape(self, shape):
        return shape

def build(input_shape, classes):
    x = keras.Input(input_shape)
    return keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(Late()(x))))
"""


@pytest.mark.parametrize(
    ("raises", "kind", "message"),
    [
        ("raise KeyError('forgotten')", TrainError, r"Probing failed: .* Correct it in .*networks"),
        ("raise MemoryError('no room')", TooLargeError, r"with a batch of 16 does not fit"),
    ],
)
def test_what_the_users_own_code_raises_in_a_step_is_explained(
    question: Question, desk: Any, tmp_path: Path, raises: str, kind: type[TrainError], message: str
) -> None:
    own = late(question, desk.code(late=LATE.format(raises=raises)))
    with pytest.raises(kind, match=message):
        probe(Trial(question=own, seconds=0.5), tmp_path)


def test_what_it_raises_in_training_alone_is_explained_by_a_trace(question: Question, desk: Any) -> None:
    text = LATE.replace(
        "def call(self, x):", "def call(self, x, training=False):\n        assert not training"
    )
    own = late(question, desk.code(late=text.format(raises="pass")))
    with pytest.raises(
        TrainError, match=r"Tracing failed at .*late.py:\d+: AssertionError.* Correct it there"
    ):
        trace.trace(own)


def late(question: Question, folder: Path) -> Question:
    """Return a question about the model of `late.py`."""
    own = {
        "architecture": {"build": "late:build", "code": str(folder)},
        "code": Code(place=str(folder)).text(),
        "code_sha256": artifacts.tree_sha256(folder),
    }
    return question.model_copy(update=own)


def test_what_has_no_room_is_not_begun(question: Question, tmp_path: Path) -> None:
    huge = question.model_copy(update={"architecture": {"filters": [], "dense": [65536, 65536, 65536]}})
    with pytest.raises(TooLargeError, match=r"take 138 GB and there are .* nothing to probe"):
        probe(Trial(question=huge, seconds=0.5), tmp_path)
