"""Validates documents with pydantic; an error names the origin and key of a value, and what was expected."""

import re
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from itertools import groupby
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.layers import Document
from modelyard.pipelines.config.text import DURATION, Keys, format_value

EXPECTED_VALUES = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "string_type": "text (in quotes, if it would be a number, true, false or null)",
    "bool_type": "true or false",
    "tuple_type": "a list: write [{item}]",
    "list_type": "a list: write [{item}]",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "greater_than": "greater than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than": "less than {lt}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
M = TypeVar("M", bound=BaseModel)
_DOTTED_KEY = re.compile(r"[a-z_]+(?:\.[\w-]+)+")


def validate(document: Document, kind: type[M], prefix: Keys = ()) -> M:
    """Return a document, or the section at `prefix`, as an object of a class.

    Raises:
        ConfigError: has a line for each invalid key.
    """
    try:
        return kind.model_validate(document.get(prefix))
    except ValidationError as error:
        raise _create_error(error, kind, document, prefix) from error


def combine_errors(subject: str, errors: Sequence[str]) -> ConfigError:
    """Return one error for the errors of a subject, with a line for each if there are several."""
    if len(errors) == 1:
        return ConfigError(errors[0])
    return ConfigError("\n  ".join([f"{subject} has {len(errors)} errors.", *errors]))


def iterate_keys(kind: type[BaseModel], prefix: Keys = ()) -> Iterator[tuple[Keys, FieldInfo]]:
    """Yield the path and field of every key of a class, a section before its keys."""
    for name, field in kind.model_fields.items():
        yield (*prefix, name), field
        if section := section_class(field):
            yield from iterate_keys(section, (*prefix, name))


def section_class(field: FieldInfo) -> type[BaseModel] | None:
    """Return the class of a key that is a section, even if it may be null."""
    kinds = (field.annotation, *get_args(field.annotation))
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def did_you_mean(word: str, words: Sequence[str]) -> str:
    """Return `; did you mean …?` with the words similar to `word`, or an empty string."""
    similar = get_close_matches(word, words, n=2, cutoff=0.6)
    return f"; did you mean {' or '.join(similar)}?" if similar else ""


def suggest(word: str, words: Sequence[str]) -> str:
    """Return the end of an error message: the words similar to `word`, or all words."""
    return did_you_mean(word, words) or f"; choose from {', '.join(words)}."


def _create_error(
    error: ValidationError, kind: type[BaseModel], document: Document, prefix: Keys
) -> ConfigError:
    fields = dict(iterate_keys(kind, prefix))
    details = error.errors(include_url=False)
    lines = []
    for key_path, group in groupby(details, key=lambda detail: _find_key_path(detail, document, prefix)):
        key_errors = list(group)
        origin = _find_origin(key_path, key_errors[0], document)
        lines.append(f"{origin}: {_format_message(key_path, key_errors, document, fields)}")
    return combine_errors("The configuration", lines)


def _find_key_path(detail: ErrorDetails, document: Document, prefix: Keys) -> Keys:
    """Return the key path without the branches of unions that pydantic appends."""
    keys = (*prefix, *detail["loc"])
    if detail["type"] in ("missing", "extra_forbidden"):
        return keys
    return next((keys[:depth] for depth in range(len(keys)) if not document.has(keys[: depth + 1])), keys)


def _find_origin(key_path: Keys, detail: ErrorDetails, document: Document) -> str:
    """Return the origin of a value, or of the first key in the message of an error about a section."""
    if detail["type"] == "value_error" and isinstance(document.get(key_path), dict):
        for path in _DOTTED_KEY.findall(str(detail["ctx"]["error"])):
            keys = tuple(path.split("."))
            depth = next((depth for depth in range(len(keys), 1, -1) if document.has(keys[:depth])), 0)
            if depth:
                return document.origin(keys[:depth])
    return document.origin(key_path)


def _format_message(
    key_path: Keys, details: list[ErrorDetails], document: Document, fields: dict[Keys, FieldInfo]
) -> str:
    path, value, first = ".".join(map(str, key_path)), document.get(key_path), details[0]
    if first["type"] == "extra_forbidden":
        return f"{path} is not a key{_key_hint(key_path, fields)}"
    if first["loc"][-1:] == ("[key]",):
        return f"{path} is not a key; the keys are {_format_expected(first)}."
    field = fields.get(key_path)
    ancestors = (key_path[:depth] for depth in range(len(key_path), 0, -1))
    nearest = field or next((fields[keys] for keys in ancestors if keys in fields), None)
    description = nearest.description if nearest and nearest.description else ""
    description = f"{description.partition('. ')[0].rstrip('.')}."  # its first sentence
    if first["type"] == "missing":
        return f"{path} is missing; add it: {description}"
    if first["type"] == "value_error":
        names_key = isinstance(value, dict) or document.origin(key_path) == f"--set {path}"
        subject = "" if names_key else f"{path}: "
        text = f"{subject}{first['ctx']['error']}"
        return text if text.endswith(("?", ".")) else f"{text}."
    if field and any(getattr(constraint, "pattern", None) == DURATION for constraint in field.metadata):
        expected = "a duration, such as 90m, 12h, 30d or 8w"
        return f"{path} is {format_value(value)} and must be {expected}{_default_hint(field)}"
    if len(details) > 1 or first["type"] not in EXPECTED_VALUES:
        return f"{path} is {format_value(value)}, which is not valid. Expected: {description}"
    hint = _choice_hint(value, first) or _default_hint(field)
    if first["type"] == "model_type" and field and not field.is_required():
        hint = "; remove the key to use the default."
    return f"{path} is {format_value(value)} and must be {_format_expected(first)}{hint}"


def _format_expected(detail: ErrorDetails) -> str:
    value = detail["input"]
    item = "" if value is None else value if isinstance(value, str) else format_value(value)
    return describe_expected(detail, item)


def describe_expected(detail: ErrorDetails, item: str = "") -> str:
    """Return what was expected instead of a value; the error has a type of EXPECTED_VALUES.

    `item` is the value as text, for the example of a list with one item.
    """
    context = {
        name: f"{value:g}" if isinstance(value, float) else value
        for name, value in detail.get("ctx", {}).items()
    }
    return EXPECTED_VALUES[detail["type"]].format(item=item, **context)


def _choice_hint(value: Any, detail: ErrorDetails) -> str:
    """Suggest the choices that are similar to a wrong value."""
    words = str(detail.get("ctx", {}).get("expected", "")).replace(" or ", ", ").split(", ")
    if not value or not isinstance(value, str):
        return ""
    return did_you_mean(value, [word.strip("'") for word in words])


def _key_hint(key_path: Keys, fields: dict[Keys, FieldInfo]) -> str:
    """Suggest keys that are similar to an unknown key, or have its name in another section."""
    word = str(key_path[-1])
    siblings = [str(keys[-1]) for keys in fields if keys[:-1] == key_path[:-1]]
    same_name = [".".join(map(str, keys)) for keys in fields if keys[-1] == word]
    section = ".".join(map(str, key_path[:-1]))
    similar = [f"{section}.{name}".strip(".") for name in get_close_matches(word, siblings, n=2, cutoff=0.6)]
    if similar or same_name:
        return f"; did you mean {' or '.join(similar or same_name)}?"
    owner = f"keys of {section}" if section else "top-level keys"
    return f"; remove it. The {owner} are {', '.join(siblings)}."


def _default_hint(field: FieldInfo | None) -> str:
    default = field.default if field else None
    if isinstance(default, str | int | float):
        return f"; the default is {format_value(default)}."
    return "."
