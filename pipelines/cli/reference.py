"""The keys of the configuration for people: the reference page and the file to begin with.

Both are made from the `Field`s, so that a key is documented once. docs/config.md is this page:

    modelyard config reference > docs/config.md
    modelyard config reference --environments > docs/environment-keys.md
"""

import json
import textwrap
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from modelyard.pipelines.config import text as config_text
from modelyard.pipelines.config.config import DIGITS, Config
from modelyard.pipelines.config.errors import section_class
from modelyard.pipelines.environments.environment import Environment

CONFIG_HEAD = """\
# The configuration

<!-- Made by `modelyard config reference > docs/config.md` from the Fields in the code. -->

One YAML file: `modelyard run cifar10.yaml`. Unknown keys, wrong types and impossible combinations are errors
that name the line, the value and the remedy. `modelyard config init` writes a file to begin with, `modelyard
config show` prints the effective configuration, and `modelyard config schema` gives editors a JSON Schema.
A value that only Keras can refuse, such as a momentum of 2, is refused by `modelyard plan`, or by the step
`train` before the first epoch.

Order of precedence:

1. the command line: `--set training.epochs=3`, as often as needed; the value is YAML, dots lead into sections
2. the environment: `MODELYARD_TRAINING__EPOCHS=3`, with two underscores for a dot; also `MODELYARD_NAME`
3. the file; without a file, the digits ([examples/digits.yaml](../examples/digits.yaml))
4. the default

A relative path in `data.source` or `model.code` is relative to the file that says it, or to the working
directory when the command line or the environment does. `store.url` is relative to the working directory.
YAML is read as version 1.2: `no` is text, `1e-3` is a number, and a key `3` is text, as for a class named 3.

`MODELYARD_HOME` (default `.modelyard`) is where runs, caches and logs go; it is no key of the configuration.
"""

ENVIRONMENTS_HEAD = """\
# The keys of an environment

<!-- Made by `modelyard config reference --environments > docs/environment-keys.md` from the code. -->

[environments.md](environments.md) says what an environment is.
"""

TYPES = {
    "boolean": "true or false",
    "integer": "whole number",
    "null": "`null`",
    "number": "number",
    "object": "keys and values",
    "string": "text",
}


def config_page() -> str:
    """Return the reference of the configuration in Markdown."""
    return _page(CONFIG_HEAD, Config)


def environments_page() -> str:
    """Return the reference of environments in Markdown."""
    return _page(ENVIRONMENTS_HEAD, Environment)


def _page(head: str, kind: type[BaseModel]) -> str:
    return "\n".join([head, *_section(kind, "", kind.model_json_schema(), set())]) + "\n"


def schema() -> str:
    """Return the JSON Schema of the configuration, for editors."""
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema"}
    return json.dumps({**head, **Config.model_json_schema()}, indent=2)


def starter_config() -> str:
    """Return a configuration to begin with: the digits, and every other key as a comment."""
    head = "# A configuration of modelyard. Keys that are comments show their defaults.\n"
    return head + "\n".join(_keys(Config.model_validate(DIGITS), DIGITS)) + "\n"


def _section(
    kind: type[BaseModel], path: str, schema: Mapping[str, Any], shown: set[type[BaseModel]]
) -> Iterator[str]:
    """Yield the table of a section and of those in it; one that is there several times is shown once."""
    shown.add(kind)
    properties = (schema["$defs"][kind.__name__] if path else schema)["properties"]
    yield f"## {path}\n" if path else "## At the top\n"
    yield "| key | type | default | |\n|---|---|---|---|"
    for name, field in kind.model_fields.items():
        cells = f"`{name}`", _type(properties[name]), _default(field), field.description or ""
        yield "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
    yield ""
    for name, field in kind.model_fields.items():
        if (section := section_class(field)) and section not in shown:
            yield from _section(section, f"{path}.{name}".strip("."), schema, shown)


def _type(schema: Mapping[str, Any]) -> str:
    """Return a JSON Schema in a few words."""
    if "anyOf" in schema:
        return " or ".join(_type(option) for option in schema["anyOf"])
    if "$ref" in schema:
        return "section"
    if choices := schema.get("enum", [schema["const"]] if "const" in schema else None):
        return ", ".join(f"`{choice}`" for choice in choices)
    if schema["type"] == "array":
        return f"list: {_type(schema['items'])}"
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return f"{TYPES[schema['type']]} {', '.join(limits)}".strip()


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    return "" if isinstance(default, BaseModel) else f"`{json.dumps(default)}`"


def _keys(values: BaseModel, set_keys: Collection[str], indent: str = "") -> Iterator[str]:
    """Yield the lines of a section; the keys that are not `set_keys` are comments."""
    plain = values.model_dump(mode="json")
    for name, field in type(values).model_fields.items():
        value, off = getattr(values, name), "" if name in set_keys else "# "
        if not indent:
            yield ""
        yield from (f"{indent}# {line}" for line in textwrap.wrap(field.description or "", 100 - len(indent)))
        if isinstance(value, BaseModel):
            inside = DIGITS.get(name, type(value).model_fields)
            yield from (off + line for line in [f"{name}:", *_keys(value, inside, "  ")])
        else:
            yield from (f"{indent}{off}{line}" for line in config_text.dump({name: plain[name]}).splitlines())
