"""Walks a traced function with all it calls: how much arithmetic, and how often a loop's body runs.

work = walk(concrete.graph)
work.flops, work.backward, work.unknown
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from components.train.backend import tf
from components.train.operations import OPAQUE, Operation, UnknownShapeError, flops, shape

GRADIENT = "gradient_tape/"
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
SAME = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient")
Bindings = dict[str, Any]  # the name of an argument of a function -> what the caller gives for it


@dataclass
class Work:
    """What one execution does.

    `flops` are all of it, `backward` those of the gradients. `pushed` is what loops keep for their gradients,
    in bytes. `unknown` says why `flops` is a lower bound; empty when it is exact.
    """

    flops: int = 0
    backward: int = 0
    pushed: int = 0
    unknown: list[str] = field(default_factory=list)

    def add(self, other: "Work", times: int, backward: bool) -> None:
        """Add what a function does that is called `times` times."""
        self.flops += times * other.flops
        self.backward += times * (other.flops if backward else other.backward)
        self.pushed += times * other.pushed
        self.unknown += [one for one in other.unknown if one not in self.unknown]


def walk(graph: Any, outer: Bindings | None = None) -> Work:
    """Return the work of a graph, called functions included.

    Args:
        graph: a FuncGraph whose batch has a fixed size.
        outer: what its arguments are, where a caller knows it.
    """
    work, bindings = Work(), outer or {}
    for operation in alive(graph):
        backward = is_backward(operation)
        if operation.type in OPAQUE:
            work.unknown.append(f"{operation.type} ({operation.name})")
        elif operation.type in LOOPS:
            body = _called(graph, operation, "body")
            times = trips(graph, operation, bindings)
            if times is None:
                work.unknown.append(f"a loop of unknown length ({operation.name})")
            work.add(walk(body, _bind(body, operation.inputs)), 1 if times is None else times, backward)
        elif operation.type in BRANCHES:
            each = [walk(_called(graph, operation, name)) for name in _branches(operation)]
            work.add(max(each, key=lambda one: one.flops), 1, backward)
        elif operation.type in CALLS:
            body = _called(graph, operation, "f")
            work.add(walk(body, _bind(body, operation.inputs)), 1, backward)
        else:
            _count(work, operation, backward)
    return work


def alive(graph: Any) -> list[Operation]:
    """Return the operations that something depends on, in their order: TensorFlow runs no others."""
    waiting = [tensor.op for tensor in graph.outputs] + list(graph.control_outputs)
    found = set()
    while waiting:
        operation = waiting.pop()
        if operation.name not in found:
            found.add(operation.name)
            waiting += [tensor.op for tensor in operation.inputs] + list(operation.control_inputs)
    return [operation for operation in graph.get_operations() if operation.name in found]


def is_backward(operation: Operation) -> bool:
    """Say whether an operation belongs to the gradients."""
    called = operation.get_attr("f").name if operation.type in CALLS else ""
    return operation.name.startswith(GRADIENT) or "__backward_" in called


def trips(graph: Any, loop: Operation, bindings: Bindings) -> int | None:
    """Return how often a loop's body runs, or None when that is not fixed before it runs.

    Understood is what Keras and TensorFlow write: a counter from a constant, by a constant, up to a constant,
    and the loop of the gradient, which runs as often as the loop that it belongs to.
    """
    condition, body = _called(graph, loop, "cond"), _called(graph, loop, "body")
    known = []
    for less in (one for one in condition.get_operations() if one.type == "Less"):
        counter = _argument(condition, less.inputs[0])
        limit = _limit(graph, condition, loop, less.inputs[1], bindings)
        if counter is None or limit is None:
            continue
        start, step = _number(loop.inputs[counter], graph, bindings), _increment(body, counter)
        if start is not None and step:
            known.append(max(0, -(-(limit - start) // step)))
    # all conditions hold together (maximum_iterations beside the loop's own): the first to fail ends it
    return min(known, default=None)


def _count(work: Work, operation: Operation, backward: bool) -> None:
    try:
        if operation.type == "TensorListPushBack":
            work.pushed += size(operation.inputs[1])
        found = flops(operation)
    except UnknownShapeError:
        work.unknown.append(f"{operation.type} of unknown shape ({operation.name})")
        return
    work.flops += found
    work.backward += found if backward else 0


def size(tensor: Any) -> int:
    """Return the bytes of a tensor.

    Raises:
        UnknownShapeError: a dimension is unknown.
    """
    count = 1
    for side in shape(tensor):
        count *= side
    return count * int(tensor.dtype.size)


def source(tensor: Any) -> Any:
    """Return the tensor whose memory another one shares: through Reshape, Identity and the like."""
    while tensor.op.type in SAME:
        tensor = tensor.op.inputs[tensor.value_index if tensor.op.type == "IdentityN" else 0]
    return tensor


def _called(graph: Any, operation: Operation, attribute: str) -> Any:
    """Return the graph of a function that an operation names."""
    name, _, number = attribute.partition("[")
    function = operation.get_attr(name)
    if number:
        function = function[int(number.rstrip("]"))]
    return graph._get_function(function.name).graph


def _branches(operation: Operation) -> Iterator[str]:
    if "branches" in operation.node_def.attr:
        yield from (f"branches[{number}]" for number in range(len(operation.get_attr("branches"))))
    else:
        yield from ("then_branch", "else_branch")


def _bind(body: Any, inputs: Any) -> Bindings:
    return {inner.name: outer for inner, outer in zip(body.inputs, inputs, strict=False)}


def _argument(graph: Any, tensor: Any) -> int | None:
    """Return which argument of its function a tensor is."""
    tensor = source(tensor)
    return next((place for place, one in enumerate(graph.inputs) if one is tensor), None)


def _limit(graph: Any, condition: Any, loop: Operation, tensor: Any, bindings: Bindings) -> int | None:
    """Return what a loop counts to: a constant, or an argument that the body hands on unchanged."""
    place = _argument(condition, tensor)
    if place is None:
        return _number(tensor, condition, {})
    body = _called(graph, loop, "body")
    kept = _argument(body, body.outputs[place]) == place
    return _number(loop.inputs[place], graph, bindings) if kept else None


def _increment(body: Any, place: int) -> int | None:
    """Return by how much the body raises an argument each time."""
    raised = source(body.outputs[place])
    if raised.op.type not in ("Add", "AddV2"):
        return None
    one, other = raised.op.inputs
    for argument, by in ((one, other), (other, one)):
        if _argument(body, argument) == place:
            return _number(by, body, {})
    return None


def _number(tensor: Any, graph: Any, bindings: Bindings) -> int | None:
    """Return the whole number that a tensor always is, or None."""
    tensor = source(tensor)
    if tensor.name in bindings and tensor.op.type == "Placeholder":
        outer = bindings[tensor.name]
        return _number(outer, outer.graph, {})
    if tensor.op.type in LOOPS:  # what a loop counted to, as its gradient asks
        return trips(graph, tensor.op, bindings) if tensor.value_index == 0 else None
    if tensor.op.type == "Max" and shape(tensor.op.inputs[1]) == (0,):  # over no axis: what Keras' rnn writes
        return _number(tensor.op.inputs[0], graph, bindings)
    value = tf.get_static_value(tensor)
    return int(value) if value is not None and value.ndim == 0 else None
