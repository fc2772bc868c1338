"""Walks a traced function with all it calls: how much arithmetic, and how often a loop's body runs.

work = walk(concrete.graph)
work.flops, work.backward, work.unknown
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from modelyard.components.train.backend import tf
from modelyard.components.train.operations import Operation, UnknownShapeError, flops, opaque, shape

GRADIENT = "gradient_tape/"
LOOPS = ("While", "StatelessWhile")
BRANCHES = ("If", "StatelessIf", "Case", "StatelessCase")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
SAME = ("Identity", "IdentityN", "Reshape", "Squeeze", "ExpandDims", "StopGradient", "PreventGradient")
# what loops and branches keep for their gradients -> from which of its inputs on
KEEP = {"TensorListPushBack": 1, "TensorListSetItem": 2, "OptionalFromValue": 0}
# the name of an argument of a function -> what the caller gives for it, and the arguments of the caller
Bindings = dict[str, tuple[Any, "Bindings"]]


@dataclass
class Work:
    """What one execution does.

    `flops` are all of it, `backward` those of the gradients, `dtypes` all of it by what it computes in.
    `pushed` is what loops and branches keep for their gradients, in bytes. `unknown` says why `flops` is a
    lower bound; empty when it is exact.
    """

    flops: int = 0
    backward: int = 0
    pushed: int = 0
    dtypes: Counter[str] = field(default_factory=Counter)
    unknown: list[str] = field(default_factory=list)

    def add(self, other: "Work", times: int, backward: bool) -> None:
        """Add what a function does that is called `times` times."""
        self.flops += times * other.flops
        self.backward += times * (other.flops if backward else other.backward)
        self.pushed += times * other.pushed
        self.dtypes.update({name: times * found for name, found in other.dtypes.items()})
        self.unknown += [one for one in other.unknown if one not in self.unknown]


def walk(graph: Any, outer: Bindings | None = None) -> Work:
    """Return the work of a graph, called functions included.

    Args:
        graph: a FuncGraph whose batch has a fixed size.
        outer: what its arguments are, where a caller knows it.
    """
    work, bindings, operations = Work(), outer or {}, alive(graph)
    behind = gradients(operations)
    for operation in operations:
        backward = operation.name in behind
        if operation.type in LOOPS:
            body = _called(graph, operation, "body")
            times = trips(graph, operation, bindings)
            if times is None:
                work.unknown.append(f"a loop of unknown length ({operation.name})")
            unchanged = _bind(body, operation.inputs, bindings, loop=True)
            work.add(walk(body, unchanged), 1 if times is None else times, backward)
        elif operation.type in BRANCHES:
            bodies = [_called(graph, operation, name) for name in _branches(operation)]
            each = [walk(body, _bind(body, list(operation.inputs)[1:], bindings)) for body in bodies]
            work.add(_least(each, operation.name), 1, backward)
        elif operation.type in CALLS:
            body = _called(graph, operation, "f")
            work.add(walk(body, _bind(body, operation.inputs, bindings)), 1, backward)
        elif opaque(operation):
            work.unknown.append(f"{operation.type} ({operation.name})")
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


def gradients(operations: list[Operation]) -> set[str]:
    """Return the names of those operations that belong to the gradients.

    The tape names its own. A custom gradient does not, as that of silu or of what is computed again
    (keras.remat): it is what depends on one of the tape's that is older, and one of the tape's on it. Younger
    are the lists that a loop of the forward pass fills for its gradient.

    Args:
        operations: those of a graph, in the order in which they were made.
    """
    named = {one.name for one in operations if _named(one)}
    after: set[str] = set()
    before = set(named)
    for one in operations:
        if one.name in named or not after.isdisjoint(_needed(one)):
            after.add(one.name)
    for one in reversed(operations):
        if one.name in before:
            before.update(_needed(one))
    return after & before


def trips(graph: Any, loop: Operation, bindings: Bindings) -> int | None:
    """Return how often a loop's body runs, or None when that is not fixed before it runs.

    Understood is what Keras and TensorFlow write: a counter from a constant, by a constant, up to a constant,
    also two of them joined by `and` (maximum_iterations), and the loop of the gradient, which runs as often
    as the loop that it belongs to.
    """
    condition, body = _called(graph, loop, "cond"), _called(graph, loop, "body")
    known = []
    for test in _tests(condition.outputs[0]):
        counter = _argument(condition, test.inputs[0]) if test.type == "Less" else None
        if counter is None:
            return None
        start, step = _number(loop.inputs[counter], graph, bindings), _increment(body, counter)
        limit = _limit(graph, condition, loop, test.inputs[1], bindings)
        if start is None or limit is None or not step or step < 0:
            return None
        known.append(max(0, -(-(limit - start) // step)))
    return min(known, default=None)  # the first to fail ends the loop


def _least(branches: list[Work], name: str) -> Work:
    """Return what a branch does at least; it keeps at most what the one that keeps most does."""
    unknown = list(dict.fromkeys(one for branch in branches for one in branch.unknown))
    if len({branch.flops for branch in branches}) > 1:
        unknown.append(f"which branch is taken ({name})")
    least = min(branches, key=lambda one: one.flops)
    return replace(least, pushed=max(one.pushed for one in branches), unknown=unknown)


def _count(work: Work, operation: Operation, backward: bool) -> None:
    try:
        if operation.type in KEEP:
            kept = list(operation.inputs)[KEEP[operation.type] :]
            work.pushed += sum(size(one) for one in kept if one.dtype.is_numpy_compatible)
        found = flops(operation)
    except UnknownShapeError:
        work.unknown.append(f"{operation.type} of unknown shape ({operation.name})")
        return
    if found:
        work.flops += found
        work.backward += found if backward else 0
        work.dtypes[operation.outputs[0].dtype.name] += found


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


def _named(operation: Operation) -> bool:
    """Say whether the tape named an operation as one of the gradients."""
    called = operation.get_attr("f").name if operation.type in CALLS else ""
    return operation.name.startswith(GRADIENT) or "__backward_" in called


def _needed(operation: Operation) -> set[str]:
    """Return the names of the operations that one waits for."""
    needed = {tensor.op.name for tensor in operation.inputs}
    return needed.union(one.name for one in operation.control_inputs)


def _bind(body: Any, inputs: Any, caller: Bindings, loop: bool = False) -> Bindings:
    """Return what is given for a function's arguments; for a loop's, only those that its body hands on."""
    return {
        inner.name: (outer, caller)
        for place, (inner, outer) in enumerate(zip(body.inputs, inputs, strict=False))
        if not loop or source(body.outputs[place]) is inner
    }


def _tests(tensor: Any) -> Iterator[Operation]:
    """Return what a loop's condition joins by `and`, without what always holds."""
    tensor = source(tensor)
    if tensor.op.type == "LogicalAnd":
        for one in tensor.op.inputs:
            yield from _tests(one)
    elif not tf.get_static_value(tensor):
        yield tensor.op


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
        outer, caller = bindings[tensor.name]
        return _number(outer, outer.graph, caller)
    if tensor.op.type in LOOPS:  # what a loop counted to, as its gradient asks
        return trips(graph, tensor.op, bindings) if tensor.value_index == 0 else None
    if tensor.op.type in CALLS:  # as a loop's counter, when the loop is in a function of its own
        body = _called(graph, tensor.op, "f")
        return _number(body.outputs[tensor.value_index], body, _bind(body, tensor.op.inputs, bindings))
    if tensor.op.type == "Max" and shape(tensor.op.inputs[1]) == (0,):  # over no axis: what Keras' rnn writes
        return _number(tensor.op.inputs[0], graph, bindings)
    value = tf.get_static_value(tensor)
    return int(value) if value is not None and value.ndim == 0 and value.dtype.kind in "iu" else None
