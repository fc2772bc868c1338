"""Reports what a training step takes: memory, and floating-point operations.

    python -m modelyard.components.train.cost QUESTION.json COST.json

The network is built and compiled as the step `train` does it, and Keras' own training step is traced into a
TensorFlow graph with a fixed batch. Nothing is trained, and no memory is needed for the variables. For a
model that JAX will train, the caller sets KERAS_BACKEND to tensorflow: the mathematics are those of Keras.
"""

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Schema
from modelyard.components.errors import TrainError
from modelyard.components.step import step
from modelyard.components.train import code_archive, trainer, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import keras, tf
from modelyard.components.train.measurement import Cost, TrainingWorkload
from modelyard.components.train.settings import CodeLocation

GRADIENT = "gradient_tape/"  # the scope in which TensorFlow puts the operations of the backward pass
NOT_ACTIVATIONS = ("Const", "Placeholder", "ReadVariableOp", "Shape", "ShapeN", "VariableShape")
# Operations with many multiplications; the profiler does not count those inside of loops and functions.
EXPENSIVE_OPERATIONS = re.compile(
    r"MatMul|Einsum|Conv(?!ert)|While|^(Stateless)?(If|Case)$|PartitionedCall|PyFunc|FFT|RNN|Cholesky|Solve|Svd|Eig"
)


def compute_cost(workload: TrainingWorkload) -> Cost:
    """Return what a training step of a model takes.

    Raises:
        TrainError: the model cannot be built, or its code fails.
    """
    try:
        with tf.Graph().as_default():  # whose variables are never created
            return _compute_cost(workload)
    except TrainError:
        if not workload.model.build:
            raise
        return _compute_cost(workload)  # the user's code may compute with values, which a graph does not have


def build_compiled_network(workload: TrainingWorkload) -> Any:
    """Return the untrained network of the step `train`, compiled as there."""
    settings, training = workload.model, workload.training
    keras.utils.set_random_seed(training.seed)
    code = _code_folder(workload.code)
    network = networks.build_network(
        settings,
        workload.example_schema,
        workload.normalization,
        code,
        workload.code_sha256,
        training.precision,
    )
    examples, normalization = workload.example_schema, workload.normalization
    trainer.compile_model(network, settings, training, examples, normalization, workload.training_examples)
    with translate_code_errors(workload, "Tracing"):
        network.optimizer.build(network.trainable_variables)
    return network


def translate_code_errors(workload: TrainingWorkload, what: str) -> AbstractContextManager[None]:
    """Name the line of the user's code that fails in the block, if the model is the user's own."""
    own = workload.model.build
    return user_code.translate_errors(_code_folder(workload.code), what) if own else nullcontext()


def trace_step(network: Any, schema: Schema, batch_size: int) -> Any:
    """Return the graph of one training step."""
    shape, dtype = schema.shape, network.inputs[0].dtype
    target = problems.of(schema.problem).target_dtype
    few = np.zeros((2, *shape), dtype), np.zeros(2, target)
    network._symbolic_build(data_batch=few)  # creates the variables of the metrics, which a graph must not
    step = tf.function(lambda examples, targets: network.train_step((examples, targets)))
    batch = tf.TensorSpec((batch_size, *shape), dtype), tf.TensorSpec((batch_size,), target)
    return step.get_concrete_function(*batch).graph


def count_flops(graph: Any) -> tuple[int, tuple[str, ...]]:
    """Return the operations that TensorFlow's profiler counts, and the types that it cannot count."""
    profiler = tf.compat.v1.profiler
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    found = profiler.profile(graph, cmd="op", options=options)
    counted, node = {found.name}, found
    while node.children:
        node = node.children[0]
        if node.float_ops:
            counted.add(node.name)
    types = {operation.type for operation in graph.get_operations()}
    return int(found.total_float_ops), tuple(sorted(filter(EXPENSIVE_OPERATIONS.search, types - counted)))


def activation_bytes(graph: Any, variables: Any) -> tuple[int, int]:
    """Return the bytes that the forward pass keeps for the gradients, and those of the largest operation.

    The largest operation is that with the largest inputs and outputs that do not have a variable's shape.
    """
    shapes = {tuple(one.shape) for one in variables}
    kept: dict[str, int] = {}
    working = 0
    for operation in graph.get_operations():
        held = [one for one in (*operation.inputs, *operation.outputs) if _has_static_shape(one)]
        working = max(working, sum(_tensor_bytes(one) for one in held if tuple(one.shape) not in shapes))
        for tensor in operation.inputs if operation.name.startswith(GRADIENT) else ():
            source = tensor.op
            if (
                _has_static_shape(tensor)
                and not source.name.startswith(GRADIENT)
                and source.type not in NOT_ACTIVATIONS
            ):
                kept[tensor.name] = _tensor_bytes(tensor)
    return sum(kept.values()), working


def _compute_cost(workload: TrainingWorkload) -> Cost:
    network = build_compiled_network(workload)
    size = min(workload.training.batch_size, workload.training_examples)
    with translate_code_errors(workload, "Tracing"):
        graph = trace_step(network, workload.example_schema, size)
    flops, uncounted = count_flops(graph)
    activations, working = activation_bytes(graph, network.trainable_variables)
    return Cost(
        parameters=network.count_params(),
        weights=_total_bytes(network.variables),
        gradients=_total_bytes(network.trainable_variables),
        optimizer=_total_bytes(network.optimizer.variables),
        batch_size=size,
        flops=flops,
        uncounted=uncounted,
        activations=activations,
        working=working,
    )


@cache
def _code_folder(code: str) -> Path:
    """Return the folder of the user's code; an archive is fetched once."""
    return code_archive.fetch_code(CodeLocation.of(code)) if code else Path()


def _has_static_shape(tensor: Any) -> bool:
    return bool(tensor.dtype.is_numpy_compatible and tensor.shape.is_fully_defined())


def _tensor_bytes(tensor: Any) -> int:
    return int(tensor.shape.num_elements() * tensor.dtype.size)


def _total_bytes(variables: Any) -> int:
    return sum(int(np.prod(one.shape)) * tf.as_dtype(one.dtype).size for one in variables)


def main() -> None:
    """Read the workload and write the answer."""
    with step("cost"):
        workload, answer = map(Path, sys.argv[1:])
        artifacts.write(answer, compute_cost(artifacts.read(workload, TrainingWorkload)))


if __name__ == "__main__":
    main()
