"""Traces a training step and says what it is made of; no data and no accelerator are needed.

    python -m modelyard.components.train.trace QUESTION.json TRACED.json

Nothing is trained: Keras' own training step becomes a TensorFlow graph with a fixed batch, and the graph is
read. Also for a model that JAX will train: the mathematics are Keras' and the same.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import artifacts, lifeline
from modelyard.components.errors import TrainError, from_log
from modelyard.components.train import code_archive, graph, trainer, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import BACKEND, keras, tf
from modelyard.components.train.measured import Question, Traced
from modelyard.components.train.operations import UnknownShapeError
from modelyard.components.train.settings import Code, Model, Training

NO_ACTIVATION = ("Const", "Placeholder", "ReadVariableOp", "VariableShape", "Shape", "ShapeN")


def trace(question: Question) -> Traced:
    """Return what a training step of a model is made of.

    Variables belong to a graph that never runs, so that they take no memory, however many there are.

    Raises:
        TrainError: the model cannot be built, or its code fails.
    """
    if BACKEND != "tensorflow":
        return _elsewhere(question)
    try:
        with tf.Graph().as_default():
            return _trace(question)
    except TrainError:
        if not Model.model_validate(question.architecture).build:
            raise
        return _trace(question)  # the user's own code may compute with values, which a graph does not have


def _elsewhere(question: Question) -> Traced:
    """Let a process of its own trace on TensorFlow what another backend trains."""
    with tempfile.TemporaryDirectory() as folder:
        asked, answer = Path(folder) / "question.json", Path(folder) / "traced.json"
        artifacts.write(asked, question)
        command = [sys.executable, "-m", "modelyard.components.train.trace", str(asked), str(answer)]
        environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "PYTHONPATH": os.pathsep.join(sys.path)}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.splitlines() or ["it left no message"]
            raise from_log(lines) or TrainError(
                f"Tracing on TensorFlow ended with {done.returncode}: {lines[-1].strip()} "
                "Use keras.ops alone in layers of your own."
            )
        return artifacts.read(answer, Traced)


def _trace(question: Question) -> Traced:
    started = time.perf_counter()
    network, plan = compiled(question)
    layers = list(network._flatten_layers(include_self=False))
    for layer in layers:
        if hasattr(layer, "use_cudnn"):
            layer.use_cudnn = False  # the same arithmetic, as a loop that can be counted
    size = min(plan.batch_size, question.rows or plan.batch_size)
    with explained(question, "Tracing"):
        step = traced_step(network, question.examples.shape, size)
    work = graph.walk(step)
    activations, unknown = kept(step)
    variables = network.optimizer.variables
    working, updating = largest(step, network.trainable_variables)
    return Traced(
        parameters=network.count_params(),
        trainable=sum(int(np.prod(one.shape)) for one in network.trainable_variables),
        weights=_bytes(network.variables),
        gradients=_bytes(network.trainable_variables),
        optimizer=_bytes(variables),
        batch_size=size,
        flops=work.flops,
        backward=work.backward,
        lower_bound=tuple(work.unknown + [one for one in unknown if one not in work.unknown]),
        activations=activations + work.pushed,
        working=working,
        updating=updating,
        batch=sum(graph.size(one) for one in step.inputs if one.dtype != tf.resource),
        dtype=policy(work.dtypes, layers),
        seconds=time.perf_counter() - started,
    )


def compiled(question: Question) -> tuple[Any, Training]:
    """Return the network that the step `train` would fit, untrained, and how it would fit it."""
    settings = Model.model_validate(question.architecture)
    plan = Training.model_validate(question.training)
    keras.utils.set_random_seed(plan.seed)
    code = _folder(question.code)
    network = networks.build(settings, question.examples, question.normalization, code, question.code_sha256)
    trainer.compile_(network, settings, plan, question.rows or plan.batch_size * plan.steps_per_execution)
    with explained(question, "Tracing"):
        network.optimizer.build(network.trainable_variables)
    return network, plan


def explained(question: Question, what: str) -> AbstractContextManager[None]:
    """Say where the user's own code fails in a block, if the model is of their own."""
    own = Model.model_validate(question.architecture).build
    return user_code.explained(_folder(question.code), what) if own else nullcontext()


@cache
def _folder(code: str) -> Path:
    """Return the folder of the user's code; an archive is fetched once."""
    return code_archive.folder_of(Code.of(code)) if code else Path()


def traced_step(network: Any, shape: tuple[int, ...], batch_size: int) -> Any:
    """Return the graph of one training step with so many examples."""
    dtype = network.inputs[0].dtype
    few = np.zeros((2, *shape), dtype), np.zeros(2, np.int64)
    network._symbolic_build(data_batch=few)  # the metrics, whose variables a graph must not make
    step = tf.function(lambda examples, labels: network.train_step((examples, labels)))
    batch = tf.TensorSpec((batch_size, *shape), dtype), tf.TensorSpec((batch_size,), tf.int64)
    return step.get_concrete_function(*batch).graph


def kept(step: Any) -> tuple[int, list[str]]:
    """Return the bytes that the forward pass keeps for the gradients, and what has an unknown size."""
    used: dict[str, Any] = {}
    operations = graph.alive(step)
    backward = graph.gradients(operations)
    for operation in operations:
        if operation.name in backward:
            for tensor in map(graph.source, operation.inputs):
                if (
                    tensor.op.name not in backward
                    and tensor.op.type not in NO_ACTIVATION
                    and tensor.dtype.is_numpy_compatible
                ):
                    used[tensor.name] = tensor
    total, unknown = 0, []
    for tensor in used.values():
        try:
            total += graph.size(tensor)
        except UnknownShapeError:
            unknown.append(f"an activation of unknown shape ({tensor.op.name})")
    return total, unknown


def largest(step: Any, variables: Any) -> tuple[int, int]:
    """Return the bytes that the largest operation holds of the batch, and of what is shaped as a variable."""
    shapes = {tuple(one.shape) for one in variables}
    batch = update = 0
    for operation in graph.alive(step):
        held = [0, 0]
        for tensor in (*operation.inputs, *operation.outputs):
            if tensor.dtype.is_numpy_compatible and tensor.shape.is_fully_defined():
                held[tuple(tensor.shape) in shapes] += graph.size(tensor)
        batch, update = max(batch, held[0]), max(update, held[1])
    return batch, update


def policy(dtypes: Counter[str], layers: list[Any]) -> str:
    """Return the name of the dtype policy under which most of the arithmetic is done."""
    policies = [keras.config.dtype_policy(), *(layer.dtype_policy for layer in layers)]
    most = max(dtypes, key=lambda one: dtypes[one], default=policies[0].compute_dtype)
    return next((one.name for one in policies if one.compute_dtype == most), most)


def _bytes(variables: Any) -> int:
    return sum(int(np.prod(one.shape)) * tf.as_dtype(one.dtype).size for one in variables)


def main() -> None:
    """Read the question, trace, and write the answer."""
    lifeline.follow()
    question, answer = map(Path, sys.argv[1:])
    artifacts.write(answer, trace(artifacts.read(question, Question)))


if __name__ == "__main__":
    main()
