"""Computes the memory and floating-point operations of a training step, without training.

    python -m modelyard.components.train.cost WORKLOAD.json COST.json

The network is built and compiled as in the step `train`, and the training step of Keras is traced into a
TensorFlow graph with a fixed batch size, without allocating the variables. For a model that is trained on
JAX, the caller sets KERAS_BACKEND to tensorflow: both backends compute the same operations.
"""

import re
import sys
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems
from modelyard.components.artifacts import Schema
from modelyard.components.errors import TrainError
from modelyard.components.step import step
from modelyard.components.train import code_archive, trainer, user_code
from modelyard.components.train import model as networks
from modelyard.components.train.backend import keras, tf
from modelyard.components.train.measurement import Cost, TrainingWorkload
from modelyard.components.train.settings import CodeLocation

MAX_CHECKED_BYTES = 2**30
"""A model with larger weights is not allocated, so it is not checked."""
GRADIENT = "gradient_tape/"  # scope of the operations of the backward pass
NOT_ACTIVATIONS = ("Const", "Placeholder", "ReadVariableOp", "Shape", "ShapeN", "VariableShape")
# Operations with many multiplications, which the profiler does not count inside loops and functions.
EXPENSIVE_OPERATIONS = re.compile(
    r"MatMul|Einsum|Conv(?!ert)|While|^(Stateless)?(If|Case)$|PartitionedCall|PyFunc|FFT|RNN|Cholesky|Solve|Svd|Eig"
)


def compute_cost(workload: TrainingWorkload) -> Cost:
    """Return the cost of a training step, and check the model as `train` does before training."""
    try:
        with tf.Graph().as_default():  # variables of a graph are not allocated
            cost = _compute_cost(workload)
    except TrainError:
        if not workload.model.build:
            raise
        cost = _compute_cost(workload)  # user code may need eager tensors
    if cost.weights <= MAX_CHECKED_BYTES:
        _check_network(workload)
    return cost


def build_compiled_network(workload: TrainingWorkload) -> Any:
    """Return the untrained, compiled network of the step `train`."""
    settings, training = workload.model, workload.training
    keras.utils.set_random_seed(training.seed)
    schema, normalization = workload.example_schema, workload.normalization
    code, code_sha256 = _fetch_code(workload.code), workload.code_sha256
    network = networks.build_network(settings, schema, normalization, code, code_sha256, training.precision)
    trainer.compile_model(network, settings, training, schema, normalization, workload.training_examples)
    with translate_code_errors(workload, "Tracing"):
        network.optimizer.build(network.trainable_variables)
    return network


def translate_code_errors(workload: TrainingWorkload, action: str) -> AbstractContextManager[None]:
    """Translate exceptions of user code in the block; see user_code.translate_errors."""
    build = workload.model.build
    return user_code.translate_errors(_fetch_code(workload.code), action) if build else nullcontext()


def trace_step(network: Any, schema: Schema, batch_size: int) -> Any:
    """Return the graph of one training step."""
    shape, dtype = schema.shape, network.inputs[0].dtype
    target = problems.get_problem(schema.problem).target_dtype
    data = np.zeros((2, *shape), dtype), np.zeros(2, target)
    network._symbolic_build(data_batch=data)  # creates the variables of the metrics outside the graph
    step = tf.function(lambda examples, targets: network.train_step((examples, targets)))
    batch = tf.TensorSpec((batch_size, *shape), dtype), tf.TensorSpec((batch_size,), target)
    return step.get_concrete_function(*batch).graph


def count_flops(graph: Any) -> tuple[int, tuple[str, ...]]:
    """Return the number of floating-point operations, and the operation types that cannot be counted."""
    profiler = tf.compat.v1.profiler
    options = {**profiler.ProfileOptionBuilder.float_operation(), "output": "none"}
    root = profiler.profile(graph, cmd="op", options=options)
    flop_types, node = {root.name}, root
    while node.children:
        node = node.children[0]
        if node.float_ops:
            flop_types.add(node.name)
    types = {operation.type for operation in graph.get_operations()}
    return int(root.total_float_ops), tuple(sorted(filter(EXPENSIVE_OPERATIONS.search, types - flop_types)))


def count_activation_bytes(graph: Any, variables: Any) -> tuple[int, int]:
    """Return the bytes that the forward pass stores for the gradients, and those of the largest operation.

    The largest operation has the largest inputs and outputs, not counting tensors with a variable's shape.
    """
    shapes = {tuple(variable.shape) for variable in variables}
    sizes: dict[str, int] = {}
    largest_operation = 0
    for operation in graph.get_operations():
        inputs = list(filter(_has_static_shape, operation.inputs))
        tensors = [*inputs, *filter(_has_static_shape, operation.outputs)]
        size = sum(_get_bytes(tensor) for tensor in tensors if tuple(tensor.shape) not in shapes)
        largest_operation = max(largest_operation, size)
        if operation.name.startswith(GRADIENT):
            sizes |= {tensor.name: _get_bytes(tensor) for tensor in inputs if _is_activation(tensor)}
    return sum(sizes.values()), largest_operation


def _check_network(workload: TrainingWorkload) -> None:
    """Check the model, the loss and the metrics as `train` does, on random examples."""
    settings, training, schema = workload.model, workload.training, workload.example_schema
    if not (settings.build or training.loss or training.metrics or settings.regularizers()):
        return
    random, normalization = np.random.default_rng(0), workload.normalization
    shape = (trainer.CHECKED_EXAMPLES, *schema.shape)
    if schema.dtype == "uint8":
        examples: NDArray[Any] = random.integers(0, 256, shape)
    else:
        examples = normalization.mean + random.normal(size=shape) * normalization.scale
    targets = problems.get_problem(schema.problem).draw_random_targets(schema, len(examples), random)
    network = build_compiled_network(workload)
    with translate_code_errors(workload, "Checking"):
        trainer.check_untrained_network(
            network, settings, training, schema, examples.astype(schema.dtype), targets
        )


def _compute_cost(workload: TrainingWorkload) -> Cost:
    network = build_compiled_network(workload)
    size = min(workload.training.batch_size, workload.training_examples)
    with translate_code_errors(workload, "Tracing"):
        graph = trace_step(network, workload.example_schema, size)
    flops, uncounted = count_flops(graph)
    activations, largest_operation = count_activation_bytes(graph, network.trainable_variables)
    return Cost(
        parameters=network.count_params(),
        weights=_count_bytes(network.variables),
        gradients=_count_bytes(network.trainable_variables),
        optimizer=_count_bytes(network.optimizer.variables),
        batch_size=size,
        flops=flops,
        uncounted=uncounted,
        activations=activations,
        largest_operation=largest_operation,
    )


@cache
def _fetch_code(code: str) -> Path:
    """Return the folder of the user's code; an archive is downloaded once."""
    return code_archive.fetch_code(CodeLocation.from_json(code)) if code else Path()


def _is_activation(tensor: Any) -> bool:
    """Return whether a tensor is computed by the forward pass."""
    return not tensor.op.name.startswith(GRADIENT) and tensor.op.type not in NOT_ACTIVATIONS


def _has_static_shape(tensor: Any) -> bool:
    return bool(tensor.dtype.is_numpy_compatible and tensor.shape.is_fully_defined())


def _get_bytes(tensor: Any) -> int:
    return int(tensor.shape.num_elements() * tensor.dtype.size)


def _count_bytes(variables: Any) -> int:
    return sum(int(np.prod(variable.shape)) * tf.as_dtype(variable.dtype).size for variable in variables)


def main() -> None:
    """Read the workload and write its cost."""
    with step("cost"):
        workload, result = map(Path, sys.argv[1:])
        artifacts.write(result, compute_cost(artifacts.read(workload, TrainingWorkload)))


if __name__ == "__main__":
    main()
