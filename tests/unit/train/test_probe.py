"""A probe of training steps, with and without features, and its timing windows."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from modelyard.components import artifacts, interface
from modelyard.components.artifacts import Normalization, Schema
from modelyard.components.errors import ConfigError, TooLargeError, TrainError
from modelyard.components.step import TERMINATION_LOG_VARIABLE
from modelyard.components.train import probe as probing
from modelyard.components.train.cost import build_compiled_network
from modelyard.components.train.data import Features
from modelyard.components.train.measurement import ProbeRequest, TrainingWorkload
from modelyard.components.train.probe import TimedPasses, TimingWindows, probe
from modelyard.components.train.settings import CodeLocation, Model, Training


@pytest.fixture
def workload() -> TrainingWorkload:
    return TrainingWorkload(
        example_schema=Schema(
            shape=(8, 8, 1), dtype="uint8", problem="classification", names=("cat", "dog", "emu"), splits={}
        ),
        normalization=Normalization(scale=(255.0,)),
        model=Model(filters=(4,), dense=(8,)),
        training=Training(batch_size=16),
        training_examples=600,
        validation_examples=40,
    )


def timed_passes(workload: TrainingWorkload, features: Path) -> TimedPasses:
    return TimedPasses(build_compiled_network(workload), Features.read(features), workload.training)


@pytest.mark.parametrize("synthetic", [True, False])
def test_probe_measures_training_steps(
    workload: TrainingWorkload, train_env: Any, tmp_path: Path, synthetic: bool
) -> None:
    if not synthetic:
        features = train_env.features(*train_env.images(600), validation=40)
        workload = workload.model_copy(update={"features": str(features)})
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    result = probe(ProbeRequest(workload=workload, seconds=0.5), scratch)
    assert (result.synthetic, result.device) == (synthetic, "cpu:0")
    assert result.epoch.seconds(38) > 0
    assert result.validation
    assert result.validation.seconds(3) > 0
    assert 0 < result.setup + result.compile + result.export < result.seconds
    assert result.memory > 10**8
    model_bytes = sum(file.stat().st_size for file in (scratch / "model").rglob("*") if file.is_file())
    assert result.model_bytes == model_bytes


def test_an_image_of_another_version_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(interface.INTERFACE_VARIABLE, "train=0.0.9 (abc)")
    monkeypatch.setattr(probing.sys, "argv", ["probe", "{}"])
    with pytest.raises(ConfigError, match=r"0\.0\.9"):
        probing.main()


def test_the_result_in_a_pod_is_the_termination_message(
    workload: TrainingWorkload, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is mounted and must not be replaced."""
    (message := tmp_path / "termination-log").touch()
    inode, request = message.stat().st_ino, ProbeRequest(workload=workload, seconds=0.5)
    monkeypatch.setenv(TERMINATION_LOG_VARIABLE, str(message))
    monkeypatch.setattr(probing.sys, "argv", ["probe", request.model_dump_json()])
    monkeypatch.setattr(probing, "probe", lambda request, _scratch: request)
    probing.main()
    assert message.stat().st_ino == inode
    assert ProbeRequest.model_validate_json(message.read_bytes()) == request


def test_slow_steps_use_fewer_windows(
    workload: TrainingWorkload, train_env: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probing, "EXTRA_SECONDS", 0.0)
    passes = timed_passes(workload, train_env.features(*train_env.images(600), validation=40))
    passes.warm_up()
    passes.run(1e-9)
    assert passes.training_windows.pace().per_batch > 0
    assert passes.validation_windows
    assert passes.validation_windows.pace().per_batch > 0


@pytest.mark.parametrize(("jit", "sizes"), [(False, []), (True, [8, 8])])
def test_with_xla_the_size_of_the_last_batch_is_compiled(
    workload: TrainingWorkload, train_env: Any, monkeypatch: pytest.MonkeyPatch, jit: bool, sizes: list[int]
) -> None:
    passes = timed_passes(workload, train_env.features(*train_env.images(600), validation=0))
    passes._network.jit_compile = jit
    small_batches: list[int] = []

    def fit(batches: Any) -> float:
        batch_sizes = [len(labels) for _, labels in batches.take(1)]
        small_batches.extend(size for size in batch_sizes if size < 16)
        return 0.0

    monkeypatch.setattr(passes, "_time_fit", fit)
    passes.warm_up()
    assert small_batches == sizes  # 600 examples are 37 batches of 16, and one of 8


FAILING_CODE = """
import keras
import numpy as np
import tensorflow as tf
from keras import layers

def fail():
    {raises}

@keras.saving.register_keras_serializable("failing")
class Failing(layers.Layer):
    def call(self, x):
        return x + tf.stop_gradient(tf.ensure_shape(tf.numpy_function(fail, [], tf.float32), ()))

    def compute_output_shape(self, shape):
        return shape

def build(input_shape, classes):
    x = keras.Input(input_shape)
    return keras.Model(x, layers.Dense(classes, activation="softmax")(layers.Flatten()(Failing()(x))))
"""


@pytest.mark.parametrize(
    ("raises", "kind", "message"),
    [
        ("raise KeyError('missing')", TrainError, r"Probing failed.*networks"),
        ("raise MemoryError('out of memory')", TooLargeError, r"batch of 16 does not fit"),
    ],
)
def test_errors_of_user_code_in_a_probe_are_reported(
    workload: TrainingWorkload,
    train_env: Any,
    tmp_path: Path,
    raises: str,
    kind: type[TrainError],
    message: str,
) -> None:
    folder = train_env.code(failing=FAILING_CODE.format(raises=raises))
    update = {
        "model": Model(build="failing:build", code=str(folder)),
        "code": CodeLocation(url=str(folder)).to_json(),
        "code_sha256": artifacts.tree_sha256(folder),
    }
    with pytest.raises(kind, match=message):
        probe(ProbeRequest(workload=workload.model_copy(update=update), seconds=0.5), tmp_path)


class SimulatedRun:
    """Takes 2 s for a call and 0.5 s for each batch, multiplied by `factor`."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        self.factor = 1.0

    def __call__(self, count: int) -> float:
        self.calls.append(count)
        return (2.0 + 0.5 * count) * self.factor


def test_pace_separates_the_time_of_a_call_and_of_a_batch() -> None:
    windows = TimingWindows(SimulatedRun(), maximum=1000)
    windows.choose_size(52.0)
    for _ in range(3):
        windows.measure()
    pace = windows.pace()
    assert pace.per_batch == pytest.approx(0.5)
    assert pace.fixed == pytest.approx(2.0)
    assert pace.seconds(10) == pytest.approx(7.0)
    assert pace.seconds(0) == 0.0
    assert (pace.low, pace.high) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("maximum", "seconds", "calls"),
    [
        (5, 1000.0, [1, 5]),  # at most the maximum
        (1000, 0.001, [1]),  # one slow batch per window
        (1000, 1.0, [1]),  # 8 batches are expected to take 20 s, as 1 takes 2.5 s
        (1000, 3.0, [1, 8]),  # 8 batches are more precise than 1
        (5, 3.0, [1, 5]),
    ],
)
def test_the_window_size_depends_on_the_available_seconds(
    maximum: int, seconds: float, calls: list[int]
) -> None:
    simulated = SimulatedRun()
    windows = TimingWindows(simulated, maximum)
    windows.choose_size(seconds)
    simulated.calls.clear()
    windows.measure()
    assert simulated.calls == calls


def test_pace_includes_slow_windows() -> None:
    simulated = SimulatedRun()
    windows = TimingWindows(simulated, maximum=100)
    windows.choose_size(1000.0)
    for simulated.factor in (1.0, 1.0, 1.0, 3.0):
        windows.measure()
    pace = windows.pace()
    assert pace.seconds(100) == pytest.approx(52.0 * 1.5)
    assert pace.low < 1 < pace.high


def test_noise_does_not_make_the_pace_zero() -> None:
    simulated = SimulatedRun()
    windows = TimingWindows(lambda count: 9.0 if count == 1 else simulated(count), maximum=8)
    windows.choose_size(1000.0)
    windows.measure()
    assert windows.pace().per_batch == pytest.approx(6.0 / 8)
    assert windows.pace().fixed == 0.0


def test_pace_without_windows_uses_the_first_call() -> None:
    windows = TimingWindows(SimulatedRun(), maximum=1000)
    windows.warm_up()
    assert windows.pace() == probing.Pace(fixed=0.0, per_batch=2.5, low=1.0, high=1.0)
    assert np.isfinite(windows.pace().seconds(3))
