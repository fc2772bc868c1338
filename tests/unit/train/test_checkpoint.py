"""A training that is cut off and started again ends as one that never was."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from components.artifacts import History
from components.train.backend import keras
from components.train.checkpoint import Going, Shelf, read, write

OFTEN = 1e-6  # seconds: after each epoch
NET = {"filters": [4], "dense": [8], "dropout": 0.4}


class CutOffError(BaseException):
    """The machine is gone."""


@pytest.fixture
def cut(desk: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Train, and be cut off after so many checkpoints."""

    def train(checkpoints: int, **training: Any) -> None:
        kept, put = 0, Shelf.put

        def put_and_go(shelf: Shelf, path: Path) -> None:
            nonlocal kept
            put(shelf, path)
            kept += 1
            if kept == checkpoints:
                raise CutOffError

        with monkeypatch.context() as patched, pytest.raises(CutOffError):
            patched.setattr(Shelf, "put", put_and_go)
            desk.train(NET, checkpoint_every=OFTEN, **training)
        assert len(states(desk)) == 1

    return train


def states(desk: Any) -> list[Path]:
    return sorted((desk.root / "store").glob("checkpoints/*/state.npz"))


def whole(desk: Any, **training: Any) -> tuple[History, list[Any]]:
    """Train without being cut off; the checkpoints do not change what comes out."""
    history = desk.train(NET, checkpoint_every=0.0, **training)
    return history, desk.trained().get_weights()


@pytest.mark.parametrize(
    "training",
    [
        {"epochs": 5},
        {"epochs": 5, "optimizer": "sgd", "optimizer_settings": {"momentum": 0.9, "use_ema": True}},
        {"epochs": 5, "steps_per_execution": 1},
    ],
    ids=["adam", "momentum and averages", "single steps"],
)
def test_it_goes_on_where_it_was(desk: Any, cut: Any, training: dict[str, Any], capsys: Any) -> None:
    expected, weights = whole(desk, **training)
    cut(3, **training)
    capsys.readouterr()
    history = desk.train(NET, checkpoint_every=OFTEN, **training)
    said = capsys.readouterr().out.splitlines()
    assert "going on after epoch 3, from a checkpoint" in said
    assert [line.split()[1] for line in said if line.startswith("epoch ")] == ["4/5", "5/5"]
    assert (history.resumed_after, history.epochs) == (3, 5)
    assert history.metrics == expected.metrics
    for one, other in zip(desk.trained().get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)
    assert states(desk) == []  # it is over


def test_it_may_be_cut_off_again_and_again(desk: Any, cut: Any) -> None:
    expected, weights = whole(desk, epochs=6)
    for _ in range(3):
        cut(1, epochs=6)
    history = desk.train(NET, checkpoint_every=OFTEN, epochs=6)
    assert (history.resumed_after, history.metrics) == (3, expected.metrics)
    np.testing.assert_array_equal(desk.trained().get_weights()[0], weights[0])


@pytest.mark.parametrize("patience", [2, 50])
def test_early_stopping_knows_what_it_knew(desk: Any, cut: Any, patience: int) -> None:
    """Labels without sense make validation worse soon: the best epoch may be before or after the cut."""
    pictures, labels = desk.pictures(48)
    desk.features(pictures, np.random.default_rng(0).permutation(labels), validation=30)
    training = {
        "epochs": 12,
        "early_stopping": {"patience": patience},
        "optimizer_settings": {"learning_rate": 0.05},
    }
    expected, weights = whole(desk, **training)
    best = int(np.argmin(expected.metrics["val_loss"]))
    for checkpoints in (1, best + 1):
        cut(checkpoints, **training)
        history = desk.train(NET, checkpoint_every=OFTEN, **training)
        assert history.resumed_after == checkpoints
        assert (history.metrics, history.stopped_early) == (expected.metrics, expected.stopped_early)
        for one, other in zip(desk.trained().get_weights(), weights, strict=True):
            np.testing.assert_array_equal(one, other)


def test_other_settings_or_other_rows_begin_anew(desk: Any, cut: Any) -> None:
    cut(1, epochs=3)
    assert desk.train(NET, checkpoint_every=OFTEN, epochs=4).resumed_after == 0
    assert len(states(desk)) == 1  # that of the other training


@pytest.mark.parametrize("change", ["nothing", "half", "text", "other"])
def test_a_checkpoint_that_cannot_be_used_is_not_used(
    desk: Any, cut: Any, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    expected, weights = whole(desk, epochs=3)
    cut(1, epochs=3)
    (state,) = states(desk)
    kept = state.read_bytes()
    if change == "other":
        write(state, Going(epochs=1), [keras.Variable(np.ones(3, "float32"))], ())
    else:
        state.write_bytes({"nothing": b"", "half": kept[: len(kept) // 2], "text": b"no state"}[change])
    history = desk.train(NET, checkpoint_every=OFTEN, epochs=3)
    assert "the checkpoint cannot be used: " in capsys.readouterr().out
    assert (history.resumed_after, history.metrics) == (0, expected.metrics)
    np.testing.assert_array_equal(desk.trained().get_weights()[0], weights[0])


def test_training_is_worth_more_than_its_checkpoint(desk: Any, capsys: pytest.CaptureFixture[str]) -> None:
    (desk.root / "store").mkdir()
    (desk.root / "store" / "checkpoints").write_text("in the way")
    history = desk.train(NET, checkpoint_every=OFTEN, epochs=3)
    assert history.epochs == 3
    assert "no checkpoint after epoch 1: " in capsys.readouterr().out


def test_a_short_training_leaves_the_store_alone(desk: Any) -> None:
    desk.train(NET)
    assert not (desk.root / "store").exists()


def test_a_state_has_every_dtype_as_it_was(tmp_path: Path) -> None:
    values = [np.float32([1.5, -2]), np.int64(7), np.uint32([1, 2**32 - 1]), np.array([True, False])]
    variables = [keras.Variable(value, dtype=str(np.asarray(value).dtype)) for value in values]
    variables.append(keras.Variable([0.5, 3.0], dtype="bfloat16"))
    expected = [np.asarray(keras.ops.convert_to_numpy(one)).copy() for one in variables]
    write(tmp_path / "state.npz", Going(epochs=2, metrics={"loss": [0.1, 0.2]}), variables, [values[0]])
    for one in variables:
        one.assign(keras.ops.zeros_like(one))
    going, best = read(tmp_path / "state.npz", variables, variables[:1])
    assert going == Going(epochs=2, metrics={"loss": [0.1, 0.2]})
    np.testing.assert_array_equal(best[0], values[0])
    for one, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one), value)
