"""The layers of a configuration: the file, variables, --set; later layers override earlier ones.

A document records the origin of every key, so that errors name the file and line, the variable or the
option.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.components.errors import ConfigError, describe_unusable_path
from modelyard.components.store.storage import is_path
from modelyard.pipelines.config.text import Keys, Parsed, format_value, parse, parse_file

PREFIX = "MODELYARD_"
SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|=\w+://.*))"
)
PATH_KEYS: tuple[Keys, ...] = (("data", "source"), ("model", "code"))


class Document:
    """A configuration that is not validated yet.

    Attributes:
        values: nested dictionaries, lists and scalars.
        name: the file, or a description of the values, for error messages.
    """

    def __init__(self, parsed: Parsed, name: str) -> None:
        if not isinstance(parsed.value, dict):
            content = "empty" if parsed.value is None else f"{format_value(parsed.value)}, which has no keys"
            raise ConfigError(
                f"{name}: the configuration is {content}. It needs at least `name` and a section `data`; "
                "`modelyard config init` creates an example."
            )
        self.values: dict[str, Any] = parsed.value
        self.name = name
        self._origins: dict[Keys, str] = {keys: f"{name}, line {line}" for keys, line in parsed.lines.items()}

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Read a document from a file and make its paths absolute."""
        parsed = parse_file(path, "configuration", f"`modelyard config init {path}` creates one.")
        document = cls(parsed, str(path))
        for keys in PATH_KEYS:
            document._make_absolute(keys, path.absolute().parent)
        return document

    def add(self, parsed: Parsed, name: str) -> None:
        """Merge other values into the document, key by key."""
        _merge(self.values, parsed.value)
        self._origins.update({keys: f"{name}, line {line}" for keys, line in parsed.lines.items()})

    def add_variables(
        self, environ: Mapping[str, str], sections: Collection[str], prefix: str = PREFIX
    ) -> None:
        """Set the keys of environment variables such as MODELYARD_DATA__SOURCE that start with `prefix`.

        Reads variables with a double underscore, and those named after a top-level key, such as
        MODELYARD_NAME. Ignores others, such as MODELYARD_HOME.
        """
        for variable in sorted(name for name in environ if name.startswith(prefix)):
            keys = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            section, underscore, key = keys[0].partition("_")
            if is_service_link(variable, environ[variable]):
                continue
            if len(keys) > 1 or keys[0] in sections:
                self.set(keys, environ[variable], variable)
            elif section in sections and underscore:
                name = f"{PREFIX}{section}__{key}".upper()
                raise ConfigError(f"{variable} is not a key; did you mean {name}, with two underscores?")

    def add_overrides(self, overrides: Sequence[str]) -> None:
        """Set the keys of options such as `--set training.epochs=3`."""
        for override in overrides:
            key, separator, text = override.partition("=")
            keys = tuple(key.strip().split("."))
            if not separator or not all(keys):
                raise ConfigError(
                    f"--set {override}: this is not KEY=VALUE. Write it as --set training.epochs=3."
                )
            self.set(keys, text, f"--set {key.strip()}")

    def set(self, keys: tuple[str, ...], text: str, origin: str) -> None:
        """Set the value at `keys` from YAML text; paths in it are relative to the working directory."""
        section = self.values
        for depth, key in enumerate(keys[:-1], 1):
            if section.get(key) is None:
                section[key] = {}
                self._origins[keys[:depth]] = origin
            section = section[key]
            if not isinstance(section, dict):
                parent = ".".join(keys[:depth])
                raise ConfigError(f"{origin}: {parent} is {section!r} and has no keys. Set {parent} instead.")
        section[keys[-1]] = parse(text, origin).value
        self._origins = {key: old for key, old in self._origins.items() if key[: len(keys)] != keys}
        self._origins[keys] = origin
        for path in PATH_KEYS:
            if path[: len(keys)] == keys:
                self._make_absolute(path, Path.cwd())

    def has(self, keys: Keys) -> bool:
        """Return whether `keys` has a value, even null."""
        try:
            self._get_value(keys)
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def get(self, keys: Keys) -> Any:
        """Return the value at `keys`, or None."""
        return self._get_value(keys) if self.has(keys) else None

    def origin(self, keys: Keys) -> str:
        """Return the origin of the value at `keys`, or of the nearest section around it."""
        while keys and keys not in self._origins:
            keys = keys[:-1]
        return self._origins[keys] if keys else self.name

    def _make_absolute(self, keys: Keys, folder: Path) -> None:
        """Make the value at `keys` absolute if it is a path, not a URL."""
        value = self.get(keys)
        if isinstance(value, str) and value and is_path(value):
            path = os.path.normpath(folder / os.path.expanduser(value))  # noqa: PTH111 - unchanged without a home directory
            if error := describe_unusable_path(path):
                key = ".".join(map(str, keys))
                raise ConfigError(f"{self.origin(keys)}: {key} is {path!a}, which {error}. Use another path.")
            self.values[str(keys[0])][keys[1]] = path

    def _get_value(self, keys: Keys) -> Any:
        value: Any = self.values
        for key in keys:
            value = value[key]
        return value


def is_service_link(variable: str, value: str) -> bool:
    """Return whether a variable is one that Kubernetes sets in pods for a Service named modelyard-…."""
    return bool(SERVICE_LINK.fullmatch(f"{variable}={value}"))


def _merge(target: dict[str, Any], source: dict[str, Any]) -> None:
    for key, value in source.items():
        if isinstance(value, dict) and isinstance(target.get(key), dict):
            _merge(target[key], value)
        else:
            target[key] = value
