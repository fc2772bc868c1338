"""Check the types of arguments of the Python API.

    @check_arguments
    def deploy(name: str, version: int, overrides: Sequence[str] = ()) -> "Outcome": ...

Python does not check annotations, so a wrong type would otherwise fail deep inside of the package.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from types import NoneType, UnionType
from typing import Any, ParamSpec, SupportsIndex, TypeVar, get_args, get_origin

from modelyard.components.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")

NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    bool: "True or False",
    Callable: "a function",
    Mapping: "a dictionary",
    NoneType: "None",
}


def check_arguments(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function with a check that its arguments have the types of its annotations.

    Annotations in quotes are not checked. The function raises ConfigError for a wrong argument.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def checked(*args: P.args, **kwargs: P.kwargs) -> R:
        for name, value in signature.bind(*args, **kwargs).arguments.items():
            annotation = signature.parameters[name].annotation
            if not _has_type(value, annotation):
                raise ConfigError(
                    f"{function.__name__}: {name} is {value!r} and must be {_describe(annotation)}."
                )
        return function(*args, **kwargs)

    return checked


def _has_type(value: object, annotation: Any) -> bool:
    if isinstance(annotation, str):
        return True
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return any(_has_type(value, argument) for argument in arguments)
    if annotation is int:
        return isinstance(value, SupportsIndex) and not isinstance(value, bool)
    if origin is None or not issubclass(origin, Iterable) or len(arguments) != 1:
        return isinstance(value, origin or annotation)
    if not isinstance(value, Iterable) or isinstance(value, str | bytes) or not isinstance(value, origin):
        return False
    is_iterator = iter(value) is value  # its items can be read only once
    return is_iterator or all(_has_type(item, arguments[0]) for item in value)


def _describe(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is UnionType:
        return " or ".join(_describe(argument) for argument in arguments)
    if origin is not None and issubclass(origin, Iterable) and len(arguments) == 1:
        return f"a list, each item {_describe(arguments[0])}"
    kind = origin or annotation
    return NAMES.get(kind, f"a {kind.__name__}")
