"""Where a configuration's values come from, the later over the earlier: file, environment, --set.

A document is a tree of plain values that knows for every key where it was said, so that an error can
name the file and the line, the variable or the option.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.components.errors import ConfigError, unusable_path
from modelyard.components.store.storage import is_path
from modelyard.pipelines.config.text import Keys, Parsed, format_value, parse

PREFIX = "MODELYARD_"
SERVICE_LINK = re.compile(
    r"\w+_(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=\d+|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?=.*|=\w+://.*))"
)
PATH_KEYS: tuple[Keys, ...] = (("data", "source"), ("model", "code"))


class Document:
    """A configuration that is not checked yet.

    Attributes:
        values: the tree.
        name: the file, or what the values are, for messages.
    """

    def __init__(self, parsed: Parsed, name: str) -> None:
        if not isinstance(parsed.value, dict):
            found = "empty" if parsed.value is None else f"{format_value(parsed.value)}, no sections"
            raise ConfigError(
                f"{name}: the configuration is {found}. It needs `name` and a section `data` at least; "
                "`modelyard config init` writes one to begin with."
            )
        self.values: dict[str, Any] = parsed.value
        self.name = name
        self._origins: dict[Keys, str] = {keys: f"{name}, line {line}" for keys, line in parsed.lines.items()}

    @classmethod
    def read(cls, path: Path) -> "Document":
        """Return the document in a file, with its paths made absolute.

        Raises:
            ConfigError: there is no such file, or it is not a configuration's YAML.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except FileNotFoundError as error:
            raise ConfigError(
                f"{path}: there is no such file. `modelyard config init {path}` writes one to begin with."
            ) from error
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
            raise ConfigError(f"{path}: the configuration cannot be read: {reason}.") from error
        document = cls(parse(text, str(path)), str(path))
        for keys in PATH_KEYS:
            document._make_absolute(keys, path.absolute().parent)
        return document

    def add(self, parsed: Parsed, name: str) -> None:
        """Set what another document says, key by key, over what is here."""
        _merge(self.values, parsed.value)
        self._origins.update({keys: f"{name}, line {line}" for keys, line in parsed.lines.items()})

    def add_environment(self, environ: Mapping[str, str], sections: Collection[str]) -> None:
        """Set what variables such as MODELYARD_DATA__SOURCE say.

        A variable with a double underscore is one of ours, and so is one that is named after a section or
        key at the top, such as MODELYARD_NAME. Others (MODELYARD_HOME) are for other purposes.

        Raises:
            ConfigError: the underscore between section and key is single, or a value is no YAML.
        """
        for variable in sorted(name for name in environ if name.startswith(PREFIX)):
            keys = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            section, underscore, key = keys[0].partition("_")
            if is_service_link(variable, environ[variable]):
                continue
            if len(keys) > 1 or keys[0] in sections:
                self.set(keys, environ[variable], variable)
            elif section in sections and underscore:
                meant = f"{PREFIX}{section}__{key}".upper()
                raise ConfigError(f"{variable} sets nothing. Did you mean {meant}, with two underscores?")

    def add_overrides(self, overrides: Sequence[str]) -> None:
        """Set what options such as `--set training.epochs=3` say."""
        for override in overrides:
            key, equals, text = override.partition("=")
            keys = tuple(key.strip().split("."))
            if not equals or not all(keys):
                raise ConfigError(
                    f"--set {override}: this is not KEY=VALUE. Write it as in --set training.epochs=3."
                )
            self.set(keys, text, f"--set {key.strip()}")

    def set(self, keys: tuple[str, ...], text: str, origin: str) -> None:
        """Set the value at `keys` to what a YAML text says; a path in it is relative to here."""
        folder = self.values
        for depth, key in enumerate(keys[:-1], 1):
            if folder.get(key) is None:
                folder[key] = {}
                self._origins[keys[:depth]] = origin
            folder = folder[key]
            if not isinstance(folder, dict):
                above = ".".join(keys[:depth])
                raise ConfigError(f"{origin}: {above} is {folder!r} and has no keys. Set {above} itself.")
        folder[keys[-1]] = parse(text, origin).value
        self._origins = {old: was for old, was in self._origins.items() if old[: len(keys)] != keys}
        self._origins[keys] = origin
        for path in PATH_KEYS:
            if path[: len(keys)] == keys:
                self._make_absolute(path, Path.cwd())

    def has(self, keys: Keys) -> bool:
        """Say whether something, null perhaps, is said at `keys`."""
        try:
            self._at(keys)
        except (KeyError, IndexError, TypeError):
            return False
        return True

    def get(self, keys: Keys) -> Any:
        """Return the value at `keys`, or None."""
        return self._at(keys) if self.has(keys) else None

    def origin(self, keys: Keys) -> str:
        """Return where the value at `keys`, or what encloses it, was said."""
        while keys and keys not in self._origins:
            keys = keys[:-1]
        return self._origins[keys] if keys else self.name

    def _make_absolute(self, keys: Keys, folder: Path) -> None:
        """Make the path at `keys` absolute, if there is one: not an address, not a value of another type."""
        value = self.get(keys)
        if isinstance(value, str) and value and is_path(value):
            path = os.path.normpath(folder / os.path.expanduser(value))  # noqa: PTH111 - or as it is, without a home
            if why := unusable_path(path):
                key = ".".join(map(str, keys))
                raise ConfigError(f"{self.origin(keys)}: {key} is {path!a}, which {why}. Use another path.")
            self.values[str(keys[0])][keys[1]] = path

    def _at(self, keys: Keys) -> Any:
        value: Any = self.values
        for key in keys:
            value = value[key]
        return value


def is_service_link(variable: str, value: str) -> bool:
    """Say whether Kubernetes sets a variable in pods for a Service, such as one called modelyard-store."""
    return bool(SERVICE_LINK.fullmatch(f"{variable}={value}"))


def _merge(below: dict[str, Any], above: dict[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value
