"""Strict YAML of configurations, and durations such as 12h and 30d.

Scalars are those of YAML 1.2: `no` is text, `1e-3` is a number, `010` is ten. Keys are text; an integer key
`3` becomes the text "3". Errors are duplicate keys, keys of other types, aliases, tags, hexadecimal and octal
numbers, infinity and NaN. The result has only JSON types, and the line of every key.
"""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from modelyard.components.artifacts import read_small_file
from modelyard.components.errors import ConfigError

Keys = tuple[str | int, ...]
DURATION = r"^[1-9][0-9]{0,4}[mhdw]$"
MAX_VALUE_LENGTH = 60  # characters of a value in a message
UNITS = {"m": 60, "h": 3600, "d": 86400, "w": 604800}


@dataclass(frozen=True)
class Parsed:
    """A value of JSON types, and the line (from 1) of each key path in it."""

    value: Any
    lines: dict[Keys, int] = field(default_factory=dict)


def parse_file(path: Path, kind: str, if_missing: str = "Correct the path.") -> Parsed:
    """Parse a YAML file.

    Error messages call its content `kind`; `if_missing` is the remedy for a missing file.

    Raises:
        ConfigError: the file cannot be read; otherwise as `parse`.
    """
    try:
        text = read_small_file(path).decode()
    except FileNotFoundError as error:
        raise ConfigError(f"{path}: there is no such file. {if_missing}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: the {kind} cannot be read: {reason}.") from error
    return parse(text, str(path))


def parse(text: str, origin: str) -> Parsed:
    """Parse a YAML document; `origin` is the file, variable or option, for error messages.

    Raises:
        ConfigError: it is not YAML, or has something that configurations do not allow.
    """
    try:
        node = yaml.compose(text, _Loader)
        lines: dict[Keys, int] = {}
        return Parsed(None if node is None else _convert_node(node, (), lines), lines)
    except _RefusedError as error:
        raise ConfigError(f"{origin}, line {error.line}: {error}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        position = f", line {mark.line + 1}" if mark else ""
        if error.problem == "but found another document":
            raise ConfigError(
                f"{origin}{position}: there is more than one document. Remove the line ---, or all "
                "documents but one."
            ) from error
        raise ConfigError(
            f"{origin}{position}: this is not YAML: {error.problem or error.context}. "
            "Check the indentation, the colons and the quotes."
        ) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"{origin}: this is not YAML: {error}. Save it as plain UTF-8 text.") from error
    except RecursionError as error:
        raise ConfigError(f"{origin}: the YAML is nested too deeply. Use fewer levels.") from error


def dump(value: dict[str, Any]) -> str:
    """Return YAML that has the same meaning in YAML 1.1 and 1.2."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100)


def format_value(value: Any) -> str:
    """Format a value as JSON, shortened, with the closing quote or bracket."""
    text = json.dumps(value, ensure_ascii=False)
    if len(text) <= MAX_VALUE_LENGTH:
        return text
    size = f" ({len(value)} characters)" if isinstance(value, str) else ""
    return f"{text[: MAX_VALUE_LENGTH - 2]}…{text[-1]}{size}"


def parse_duration(duration: str, key: str) -> int:
    """Return a duration such as 90m, 12h, 30d or 8w in seconds; `key` is the option or key, for the error."""
    if not re.match(DURATION, duration):
        raise ConfigError(f"{key} is {duration!r}, which is not a duration. Write it as 90m, 12h, 30d or 8w.")
    return int(duration[:-1]) * UNITS[duration[-1]]


_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_TAG = "tag:yaml.org,2002:"
_SCALARS: dict[str, tuple[re.Pattern[str] | None, list[str], Callable[[str], Any]]] = {
    "null": (re.compile(r"~|null|Null|NULL|"), ["~", "n", "N", ""], lambda _: None),
    "bool": (re.compile(r"true|True|TRUE|false|False|FALSE"), list("tTfF"), lambda text: text[0] in "tT"),
    "int": (re.compile(r"[-+]?[0-9]+"), list("-+0123456789"), int),
    "float": (_FLOAT, list("-+.0123456789"), float),
    "str": (None, [], str),
}


class _RefusedError(Exception):
    """YAML that configurations do not allow."""

    def __init__(self, node_or_event: Any, message: str) -> None:
        super().__init__(message)
        self.line = node_or_event.start_mark.line + 1


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012 - YAML 1.2's are added below

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise _RefusedError(event, f"the alias *{event.anchor} is not allowed: repeat the value.")
        return super().compose_node(parent, index)


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as another type."""


for _name, (_pattern, _first, _) in _SCALARS.items():
    if _pattern:
        _full_match = re.compile(rf"(?:{_pattern.pattern})\Z")
        _Loader.add_implicit_resolver(_TAG + _name, _full_match, _first)
        _Dumper.add_implicit_resolver(_TAG + _name, _full_match, _first)


def _convert_node(node: yaml.Node, path: Keys, lines: dict[Keys, int]) -> Any:
    """Return the value of a node; add the line of each key path in it to `lines`."""
    lines.setdefault(path, node.start_mark.line + 1)
    if isinstance(node, yaml.ScalarNode):
        return _convert_scalar(node)
    if isinstance(node, yaml.SequenceNode) and node.tag == f"{_TAG}seq":
        return [_convert_node(child, (*path, number), lines) for number, child in enumerate(node.value)]
    if not isinstance(node, yaml.MappingNode) or node.tag != f"{_TAG}map":
        raise _RefusedError(node, f"the tag {node.tag} is not allowed: remove it.")
    values: dict[str, Any] = {}
    for key, child in node.value:
        name = _convert_scalar(key) if isinstance(key, yaml.ScalarNode) else key
        if isinstance(name, int) and not isinstance(name, bool):  # such as a class named 3
            name = key.value
        if not isinstance(name, str):
            if not isinstance(key, yaml.ScalarNode):
                raise _RefusedError(key, f"a key is a {key.id}, but keys are text.")
            raise _RefusedError(key, f"the key {key.value!r} is not text: put it in quotes.")
        if name in values:
            raise _RefusedError(key, f"the key {name!r} is duplicated: remove one.")
        lines[(*path, name)] = key.start_mark.line + 1
        values[name] = _convert_node(child, (*path, name), lines)
    return values


def _convert_scalar(node: yaml.ScalarNode) -> Any:
    name = node.tag.removeprefix(_TAG)
    if name not in _SCALARS:
        raise _RefusedError(node, f"the tag {node.tag} is not allowed: remove it.")
    try:
        value = _SCALARS[name][2](node.value)
    except ValueError:
        raise _RefusedError(node, f"{node.value[:40]!r} is not a valid {name}.") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise _RefusedError(node, f"{node.value!r} is too large for a number.")
    return value
