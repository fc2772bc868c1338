"""The arithmetic of one operation of a TensorFlow graph, from its type, its attributes and its shapes.

A multiplication with the addition that follows it counts as two, as hardware's peaks do. Only operations with
a product over many values count; what works element by element costs memory traffic instead (trace.py).
"""

import math
import re
from collections.abc import Callable
from typing import Any

from modelyard.components.train.backend import tf

Operation = Any  # tf.Operation
Shape = tuple[int, ...]

# Operations that work hard and whose shapes do not tell how hard, or that run what is not looked into.
HARD = re.compile(
    r"MatMul|Matrix(Inverse|Determinant|Exponential|Logarithm|SquareRoot)|Cholesky|Solve|Eig|Svd|FFT"
    r"|Conv(?!ert)|Dot|RNN|LSTM|GRU|NonMaxSuppression|PyFunc|^(Batch)?(Lu|Qr|For|MapDefun|RemoteCall)$"
    r"|^(TPUPartitionedCall|SymbolicGradient)$"
)


class UnknownShapeError(ValueError):
    """A dimension is not known before the graph runs."""


def flops(operation: Operation) -> int:
    """Return what one execution of an operation takes; 0 for those that do not count.

    Raises:
        UnknownShapeError: it counts, but a dimension is unknown.
    """
    count = _COUNTS.get(operation.type)
    return count(operation) if count else 0


def opaque(operation: Operation) -> bool:
    """Say whether nobody knows what an operation takes: it works hard, or is not one of TensorFlow's own."""
    kind = operation.type
    return kind not in _COUNTS and (bool(HARD.search(kind)) or not hasattr(tf.raw_ops, kind))


def shape(tensor: Any) -> Shape:
    """Return a tensor's shape.

    Raises:
        UnknownShapeError: a dimension is unknown.
    """
    if tensor.shape.rank is None or None in (found := tuple(tensor.shape)):
        raise UnknownShapeError(tensor.name)
    return tuple(int(side) for side in found)


def _matmul(operation: Operation) -> int:
    """Rows times columns times what is summed over."""
    transposed = next(
        operation.get_attr(name) for name in ("transpose_a", "adj_x") if name in operation.node_def.attr
    )
    summed = shape(operation.inputs[0])[-2 if transposed else -1]
    return 2 * math.prod(shape(operation.outputs[0])) * summed


def _einsum(operation: Operation) -> int:
    """Every combination of the equation's letters, once; of a single operand nothing is multiplied."""
    if len(operation.inputs) < 2:
        return 0
    letters = operation.get_attr("equation").decode().partition("->")[0].split(",")
    sides: dict[str, int] = {}
    for names, operand in zip(letters, operation.inputs, strict=True):
        for name, side in zip(_spelled(names, len(shape(operand))), shape(operand), strict=True):
            sides[name] = max(side, sides.get(name, 1))
    return 2 * math.prod(sides.values())


def _spelled(names: str, rank: int) -> list[str]:
    """Return a letter per axis; those of an ellipsis are numbered from the right, as they broadcast."""
    before, dots, after = names.replace(" ", "").partition("...")
    hidden = rank - len(before) - len(after) if dots else 0
    return [*before, *(f".{place}" for place in range(hidden, 0, -1)), *after]


def _convolution(filters: int, grid: Callable[[Operation], Any]) -> Callable[[Operation], int]:
    """Each value of the grid (the layer's output, or its gradient) is one product with the kernel."""

    def count(operation: Operation) -> int:
        kernel = shape(operation.inputs[filters] if filters >= 0 else operation.outputs[0])
        return 2 * math.prod(shape(grid(operation))) * math.prod(kernel[:-1])

    return count


def _depthwise(filters: int, grid: Callable[[Operation], Any]) -> Callable[[Operation], int]:
    def count(operation: Operation) -> int:
        kernel = shape(operation.inputs[filters] if filters >= 0 else operation.outputs[0])
        return 2 * math.prod(shape(grid(operation))) * math.prod(kernel[:-2])

    return count


def _result(operation: Operation) -> Any:
    return operation.outputs[0]


def _gradient(operation: Operation) -> Any:
    return operation.inputs[2]


_COUNTS: dict[str, Callable[[Operation], int]] = {
    **dict.fromkeys(("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "_FusedMatMul"), _matmul),
    "Einsum": _einsum,
    **dict.fromkeys(("Conv2D", "Conv3D", "_FusedConv2D"), _convolution(1, _result)),
    **dict.fromkeys(("Conv2DBackpropInput", "Conv3DBackpropInputV2"), _convolution(1, _gradient)),
    **dict.fromkeys(("Conv2DBackpropFilter", "Conv3DBackpropFilterV2"), _convolution(-1, _gradient)),
    "DepthwiseConv2dNative": _depthwise(1, _result),
    "DepthwiseConv2dNativeBackpropInput": _depthwise(1, _gradient),
    "DepthwiseConv2dNativeBackpropFilter": _depthwise(-1, _gradient),
}
