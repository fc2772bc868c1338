"""What is in a pickle of CIFAR-10, read without executing anything.

A pickle is a program for a stack machine that may call anything. This machine has the instructions of the
official files (protocol 2: a dictionary of texts, numbers, lists and a NumPy array) and calls nothing: what
NumPy's own pickles want to be called is written down (`Call`), everything else is refused.
"""

import pickletools
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.components.errors import DataError

ENCODE = "_codecs encode"
DTYPE = "numpy dtype"
RECONSTRUCT = ("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct")
KNOWN = {ENCODE, DTYPE, *RECONSTRUCT, "numpy ndarray"}

NOTHING = {"PROTO", "FRAME", "STOP"}
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1"),
    *("BINSTRING", "SHORT_BINSTRING", "BINUNICODE", "SHORT_BINUNICODE"),
}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


@dataclass
class Call:
    """A call that nobody makes, and the state that its result would be given."""

    function: str
    arguments: Any
    state: Any = None


def load(data: bytes) -> Any:
    """Return the value of a pickle; the bytes of Python 2 are texts in Latin-1, and arrays are `Call`s.

    Raises:
        DataError: it is damaged, or wants what the official files do not. The message begins with
            a verb; the caller says what.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(data):
            machine.step(opcode.name, argument)
        (value,) = machine.stack
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"is a damaged pickle ({error}). Get it again.") from error
    return value


def array(value: Any) -> NDArray[np.uint8]:
    """Return the array that a value of `load` describes, which must have bytes in the order of C.

    Raises:
        DataError: it is none.
    """
    try:
        _, shape, dtype, fortran, content = value.state
        if value.function in RECONSTRUCT and dtype.arguments[0] in ("u1", "|u1") and not fortran:
            return np.frombuffer(content.encode("latin-1"), np.uint8).reshape(shape)
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise DataError(f"has a damaged array ({error}). Get it again.") from error
    raise DataError("has another array than one of bytes in the order of C. Get the official file.")


class _Machine:
    def __init__(self) -> None:
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def step(self, opcode: str, argument: Any) -> None:
        stack = self.stack
        if opcode in NOTHING:
            pass
        elif opcode in VALUES:
            stack.append(argument)
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode in TUPLES:
            stack.append(tuple(self._top(TUPLES[opcode])))
        elif opcode == "TUPLE":
            stack.append(tuple(self._marked()))
        elif opcode == "EMPTY_LIST":
            stack.append([])
        elif opcode == "EMPTY_DICT":
            stack.append({})
        elif opcode == "MARK":
            self._marks.append(len(stack))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode in ("APPEND", "APPENDS"):
            items = self._top(1) if opcode == "APPEND" else self._marked()
            stack[-1].extend(items)
        elif opcode in ("SETITEM", "SETITEMS"):
            items = self._top(2) if opcode == "SETITEM" else self._marked()
            stack[-1].update(zip(map(_text, items[::2]), items[1::2], strict=True))
        elif opcode == "GLOBAL":
            stack.append(_known(argument))
        elif opcode == "STACK_GLOBAL":
            stack.append(_known(" ".join(map(_text, self._top(2)))))
        elif opcode == "REDUCE":
            stack.append(_call(*self._top(2)))
        elif opcode == "BUILD":
            (state,) = self._top(1)
            stack[-1].state = state
        else:
            raise _refusal(f"has the instruction {opcode} {argument!r}"[:200])

    def _top(self, count: int) -> list[Any]:
        """Take the upper `count` values off the stack."""
        if count > len(self.stack) - (self._marks[-1] if self._marks else 0):
            raise LookupError("too few values")
        start = len(self.stack) - count
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def _marked(self) -> list[Any]:
        """Take the values above the last mark off the stack."""
        values = self.stack[self._marks[-1] :]
        del self.stack[self._marks.pop() :]
        return values


def _known(function: str) -> str:
    if function not in KNOWN:
        raise _refusal(f"wants to use {function.replace(' ', '.')!r}")
    return function


def _call(function: Any, arguments: Any) -> Any:
    if function == ENCODE:
        return _text(arguments[0])  # how Python 3 writes bytes for Python 2
    return Call(function, arguments)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{type(value).__name__} where a text is expected")
    return value


def _refusal(what: str) -> DataError:
    return DataError(
        f"{what}, which the official files never do. Nothing of it was run. Get the official file, or "
        "the binary form, cifar-10-binary.tar.gz."
    )
