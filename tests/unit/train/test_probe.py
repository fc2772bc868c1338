"""A probe of real steps, on features and without any."""

from pathlib import Path
from typing import Any

import pytest

from components.artifacts import Normalization, Schema
from components.errors import TrainError
from components.train.measured import Probed, Question, Trial
from components.train.probe import probe


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


def test_what_has_no_room_is_not_begun(question: Question, tmp_path: Path) -> None:
    huge = question.model_copy(update={"architecture": {"filters": [], "dense": [65536, 65536, 65536]}})
    with pytest.raises(TrainError, match=r"take 138 GB and this machine has .* nothing to probe"):
        probe(Trial(question=huge, seconds=0.5), tmp_path)
