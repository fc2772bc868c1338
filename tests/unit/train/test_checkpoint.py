"""An interrupted training that resumes from its checkpoint reaches the same weights."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components.artifacts import History
from modelyard.components.errors import StoreError
from modelyard.components.store.folder import Folder
from modelyard.components.train import trainer
from modelyard.components.train.backend import keras
from modelyard.components.train.callbacks import TrainingState
from modelyard.components.train.checkpoint import CheckpointCallback, CheckpointStore, read_state, write_state

EVERY_EPOCH = 1e-6  # seconds between checkpoints
NET = {"filters": [4], "dense": [8], "dropout": 0.4}
QUICK = {"batch_size": 16, "checkpoint_every": EVERY_EPOCH}


class InterruptedTrainingError(BaseException):
    """Simulates the termination of the machine."""


@dataclass
class ResumeEnv:
    """Trains with a checkpoint store, without the export."""

    train_env: Any

    @property
    def store(self) -> CheckpointStore:
        return CheckpointStore(Folder(self.train_env.root / "store"), "a" * 64)

    @property
    def state(self) -> Path:
        return self.train_env.root / "store" / f"checkpoints/{'a' * 64}/state.npz"

    def train(self, store: CheckpointStore | None, **training: Any) -> tuple[History, list[Any]]:
        """Fit as the step does; return the history and the weights."""
        history, network = self.train_env.fit(NET, store, **(QUICK | training))
        return history, network.get_weights()

    def resume(self, **training: Any) -> tuple[History, list[Any]]:
        """Train, resuming from a checkpoint if there is one."""
        return self.train(self.store, **training)

    def interrupt(self, checkpoints: int, **training: Any) -> None:
        """Train until a number of checkpoints was saved, then interrupt the training."""
        with pytest.raises(InterruptedTrainingError):
            self.train(
                InterruptingStore(self.store.objects, self.store.key, [None] * checkpoints), **training
            )
        assert self.state.is_file()


@dataclass(frozen=True)
class InterruptingStore(CheckpointStore):
    """A store that interrupts the training after its last checkpoint."""

    remaining: list[None]

    def save(self, path: Path) -> None:
        super().save(path)
        self.remaining.pop()
        if not self.remaining:
            raise InterruptedTrainingError


class FullStore(CheckpointStore):
    """A store that is full."""

    def save(self, path: Path) -> None:  # noqa: ARG002
        raise StoreError("disk full")


@pytest.fixture
def resume_env(train_env: Any) -> ResumeEnv:
    return ResumeEnv(train_env)


def equal_weights(first_values: list[Any], second_values: list[Any]) -> bool:
    return all(
        np.array_equal(first, second) for first, second in zip(first_values, second_values, strict=True)
    )


def test_an_interrupted_training_ends_with_the_same_weights(resume_env: ResumeEnv, capsys: Any) -> None:
    """With averaged weights, accumulated gradients, and a callback that changes the learning rate."""
    averages = {"momentum": 0.9, "use_ema": True, "gradient_accumulation_steps": 3}
    plateau = {"name": "ReduceLROnPlateau", "patience": 2, "min_delta": 9.0, "cooldown": 1}
    training = {
        "epochs": 5,
        "optimizer": "sgd",
        "optimizer_settings": averages,
        "callbacks": [plateau, {"name": "SwapEMAWeights", "swap_on_epoch": True}],
    }
    expected, weights = resume_env.train(None, **training)
    resume_env.interrupt(2, **training)
    resume_env.interrupt(1, **training)
    capsys.readouterr()
    history, resumed_weights = resume_env.resume(**training)
    lines = capsys.readouterr().out.splitlines()
    assert "resuming after epoch 3 from a checkpoint" in lines
    assert '{"event":"checkpoint","step":"train","epoch":4}' in lines
    assert [line.split()[1] for line in lines if line.startswith("epoch ")] == ["4/5", "5/5"]
    assert (history.resumed_after, history.epochs) == (3, 5)
    assert history.metrics == expected.metrics
    assert len(set(history.metrics["learning_rate"])) > 1
    assert equal_weights(resumed_weights, weights)


def test_early_stopping_state_is_restored(resume_env: ResumeEnv) -> None:
    """The best epoch is before the interruption, as min_delta is larger than the improvements."""
    training = {
        "epochs": 20,
        "early_stopping": {"patience": 2, "min_delta": 0.05, "start_from_epoch": 1, "mode": "min"},
        "optimizer_settings": {"learning_rate": 0.01},
    }
    expected, weights = resume_env.train(None, **training)
    assert expected.stopped_early
    assert expected.epochs > 4
    resume_env.interrupt(expected.epochs - 1, **training)
    history, resumed_weights = resume_env.resume(**training)
    assert history.resumed_after == expected.epochs - 1
    assert (history.metrics, history.stopped_early) == (expected.metrics, True)
    assert equal_weights(resumed_weights, weights)


@pytest.mark.parametrize("change", ["empty", "truncated", "text", "array", "other model"])
def test_a_damaged_checkpoint_is_ignored(
    resume_env: ResumeEnv, change: str, capsys: pytest.CaptureFixture[str]
) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    network.compile("adam")
    network.optimizer.build(network.trainable_variables)
    path = resume_env.train_env.root / "state.npz"
    write_state(path, TrainingState(epochs=1), [*network.variables, *network.optimizer.variables], ())
    content, weights = path.read_bytes(), network.get_weights()
    if change == "other model":
        write_state(path, TrainingState(epochs=1), [keras.Variable(np.ones(3, "float32"))], ())
    elif change == "array":
        with path.open("wb") as file:
            np.save(file, weights[0])
    else:
        path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"text"}[change])
    resume_env.store.save(path)
    checkpoints = CheckpointCallback(resume_env.store, EVERY_EPOCH, network)
    checkpoints.restore()
    assert checkpoints.state == TrainingState()
    assert "starting with the first epoch, because the checkpoint is damaged: " in capsys.readouterr().out
    assert equal_weights(network.get_weights(), weights)


def test_training_continues_when_a_checkpoint_cannot_be_saved(
    resume_env: ResumeEnv, capsys: pytest.CaptureFixture[str]
) -> None:
    history, _ = resume_env.train(FullStore(resume_env.store.objects, resume_env.store.key), epochs=3)
    assert history.epochs == 3
    assert "cannot save a checkpoint after epoch 1: disk full" in capsys.readouterr().out


def test_an_unreachable_store_is_an_error_on_restore(resume_env: ResumeEnv) -> None:
    network = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    network.compile("adam")
    (resume_env.train_env.root / "store").write_text("a file")
    with pytest.raises(StoreError):
        CheckpointCallback(resume_env.store, EVERY_EPOCH, network).restore()


def test_a_checkpoint_is_used_only_with_the_same_settings_and_deleted_after_the_training(
    train_env: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trainer, "export", lambda *_: None)

    def states() -> list[Path]:
        return sorted((train_env.root / "store").glob("checkpoints/*/state.npz"))

    keys = []

    def save(store: CheckpointStore, path: Path) -> None:
        save_checkpoint(store, path)
        keys.append(store.key)
        raise InterruptedTrainingError

    save_checkpoint = CheckpointStore.save
    with pytest.MonkeyPatch.context() as patch, pytest.raises(InterruptedTrainingError):
        patch.setattr(CheckpointStore, "save", save)
        train_env.train(NET, checkpoint_every=EVERY_EPOCH, epochs=2)
    assert [path.parent.name for path in states()] == keys
    assert train_env.train(NET, checkpoint_every=EVERY_EPOCH, epochs=3).resumed_after == 0
    assert [path.parent.name for path in states()] == keys  # of the interrupted training
    assert train_env.train(NET, checkpoint_every=2 * EVERY_EPOCH, epochs=2).resumed_after == 1
    assert states() == []


def test_a_short_training_saves_no_checkpoint(resume_env: ResumeEnv) -> None:
    resume_env.resume(epochs=2, checkpoint_every=600.0)
    assert not (resume_env.train_env.root / "store").exists()


def test_state_preserves_dtypes(tmp_path: Path) -> None:
    values = [np.float32([1.5, -2]), np.int64(7), np.uint32([1, 2**32 - 1]), np.array([True, False])]
    variables = [keras.Variable(value, dtype=str(np.asarray(value).dtype)) for value in values]
    variables.append(keras.Variable([0.5, 3.0], dtype="bfloat16"))
    expected = [np.asarray(keras.ops.convert_to_numpy(variable)).copy() for variable in variables]
    state = TrainingState(epochs=2, metrics={"loss": [0.1, 0.2]})
    write_state(tmp_path / "state.npz", state, variables, [values[0]])
    for item in variables:
        item.assign(keras.ops.zeros_like(item))
    restored, best = read_state(tmp_path / "state.npz", variables, variables[:1])
    assert restored == state
    np.testing.assert_array_equal(best[0], values[0])
    for item, value in zip(variables, expected, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(item), value)
