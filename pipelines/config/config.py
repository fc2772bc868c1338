"""The configuration: one YAML file, validated before a run starts.

    config = load(Path("cifar10.yaml"), ["training.epochs=3"])

Order of precedence: --set, variables such as MODELYARD_TRAINING__EPOCHS=3, the store of the environment, the
file or the digits example, the default. The description of each key is in the `Field` of its section.
"""

import ast
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from modelyard.components.artifacts import tree_sha256
from modelyard.components.deploy.settings import Rollout
from modelyard.components.errors import ConfigError
from modelyard.components.evaluate.gate import Gate
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.problems import PROBLEMS, get_description
from modelyard.components.serve.settings import Serving
from modelyard.components.settings import Settings
from modelyard.components.source.checks import redact_url
from modelyard.components.source.settings import Source, SourceKeys, check_problem
from modelyard.components.store.settings import MODEL_NAME, Store
from modelyard.components.store.storage import find_storage, is_path
from modelyard.components.train.settings import (
    PLATEAU,
    CodeLocation,
    Model,
    Training,
    check_keras_settings,
    find_size_error,
)
from modelyard.pipelines.config import gate as gate_checks
from modelyard.pipelines.config.layers import PREFIX, Document
from modelyard.pipelines.config.schedule import Schedule
from modelyard.pipelines.config.text import DURATION, Parsed
from modelyard.pipelines.config.validation import did_you_mean, suggest, validate

DIGITS: dict[str, Any] = {
    "name": "digits",
    "data": {"kind": "digits", "scale": 16.0},
    "model": {"filters": [32]},
    "training": {"epochs": 20},
    "gate": {"minimum": {"accuracy": 0.9}},
}

UPLOADED_CODE = re.compile(r"[^:/]+://.+/uploads/code/([0-9a-f]{64})\.zip")
"""The URL to which `uploads.py` uploads the user's code."""


class Data(Preparation, SourceKeys):
    """The source of the examples, and how they are checked, split and normalized."""


class Retention(Settings):
    """What `modelyard gc` keeps besides anything in use. Not part of a run's fingerprint."""

    versions: int = Field(
        default=10,
        ge=0,
        description="Number of latest versions to keep, besides the champion, the previous champion, and "
        "versions that servers or runs use.",
    )
    runs: int = Field(
        default=20, ge=0, description="Number of latest runs on this machine to keep, with their artifacts."
    )
    younger_than: str = Field(
        default="30d",
        pattern=DURATION,
        description="Keep everything that is younger than this, such as 90m, 12h, 30d or 8w; at least 1m. "
        "In the store, everything younger than environment.active_deadline is also kept.",
    )


class Config(Settings):
    """The configuration of a model: data, training, gate, serving, rollout and store."""

    name: str = Field(
        pattern=f"^{MODEL_NAME}$",
        description="Name of the model in the store and in URLs: 1 to 63 lower-case letters, digits and "
        "dashes, not starting or ending with a dash.",
    )
    problem: str = Field(
        default="classification", description=f"What the model predicts: {' or '.join(PROBLEMS)}."
    )
    data: Data = Field(description="The source of the examples, and how they are split and normalized.")
    model: Model = Field(default=Model(), description="The model to train.")
    training: Training = Field(default=Training(), description="How the model is trained.")
    gate: Gate | None = Field(
        default=Gate(),
        description="The rules that decide whether a candidate is promoted. With null, every candidate is "
        "promoted.",
    )
    serving: Serving = Field(
        default=Serving(), description="Address, limits and access control of the server."
    )
    rollout: Rollout = Field(default=Rollout(), description="How a version is rolled out on a cluster.")
    retention: Retention = Field(default=Retention(), description="What `modelyard gc` keeps.")
    store: Store = Field(default=Store(), description="The model store.")
    schedule: Schedule | None = Field(
        default=None,
        description="The recurring run on Kubeflow Pipelines that `modelyard schedule apply` creates.",
    )

    def source(self) -> Source:
        """Return the source of the examples and the problem of their targets."""
        return Source(
            problem=self.problem, **{key: getattr(self.data, key) for key in SourceKeys.model_fields}
        )

    def preparation(self) -> Preparation:
        """Return the keys of `data` for preprocess, without `champion_leakage`, which evaluate checks."""
        values = {key: getattr(self.data, key) for key in Preparation.model_fields}
        fail_on = [name for name in self.data.fail_on if name != "champion_leakage"]
        return Preparation(**values | {"fail_on": fail_on})

    def code(self) -> CodeLocation | None:
        """Return the location of the user's code, if there is any."""
        if not (code := self.model.code):
            return None
        if not UPLOADED_CODE.fullmatch(code):
            return CodeLocation(url=code)
        return CodeLocation(url=code, endpoint=self.store.endpoint, user_project=self.store.user_project)

    def code_sha256(self) -> str:
        """Return the fingerprint of the user's code, local or uploaded; empty without code."""
        if not (code := self.model.code):
            return ""
        match = UPLOADED_CODE.fullmatch(code)
        return match[1] if match else tree_sha256(Path(code))

    @field_validator("problem")
    @classmethod
    def _check_problem_name(cls, problem: str) -> str:
        if problem not in PROBLEMS:
            raise ValueError(f"{problem!r} is not one of the problems{suggest(problem, tuple(PROBLEMS))}")
        return problem

    @model_validator(mode="after")
    def _check_problem_keys(self) -> Self:
        """Reject keys of sources, models, training and gate that do not fit the problem."""
        description, training = get_description(self.problem), self.training
        check_problem(self.data, self.problem)
        if self.model.logits and not description.logits:
            raise ValueError(f"model.logits does not apply to problem: {self.problem}: remove it")
        if training.class_weights is not None and not description.class_weights:
            raise ValueError(f"training.class_weights does not apply to problem: {self.problem}: remove it")
        if not self.model.build and (shape := self.data.known_shape()):
            filters = self.model.effective_filters(shape)
            if error := find_size_error(filters, self.model.kernel, shape):
                raise ValueError(error.rstrip("."))
        check_keras_settings(self.model, training, description)
        if self.gate:
            gate_checks.check_metrics(self.gate, self.problem)
            gate_checks.check_ranges(self.gate, self.problem)
        return self

    @model_validator(mode="after")
    def _check_class_names(self) -> Self:
        """Reject class weights, thresholds and margins of unknown classes."""
        class_names = {f"training.class_weights.{name}": name for name in self.training.weighted_slices()}
        limits = gate_checks.iterate_limits(self.gate) if self.gate else ()
        class_names |= {limit.path: limit.class_name for limit in limits if limit.class_name is not None}
        known_names = self.data.known_names()
        for path, name in class_names.items():
            if known_names and name not in known_names:
                raise ValueError(f"{path}: the data has no class {name!r}{suggest(name, known_names)}")
        return self

    @model_validator(mode="after")
    def _check_validation_on_test(self) -> Self:
        """Reject model selection on the test examples, on which the gate decides."""
        callbacks = [callback.class_name for callback in self.training.callback_objects()]
        selections = {
            key: remedy
            for key, used, remedy in (
                ("training.early_stopping", self.training.early_stopping, "remove training.early_stopping"),
                (PLATEAU, PLATEAU in callbacks, f"remove {PLATEAU} from training.callbacks"),
                ("gate", self.gate, "write `gate: null`"),
            )
            if used
        }
        if self.data.validation == "test" and selections:
            raise ValueError(
                f"data.validation: test does not allow {' and '.join(selections)}, because the model would "
                "be selected and evaluated on the same examples. Set data.validation: 0.1, or "
                f"{' and '.join(selections.values())}"
            )
        return self


S = TypeVar("S", bound=Settings)


def load(
    path: Path | None = None,
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    store: Store | None = None,
) -> Config:
    """Return the validated configuration.

    Relative paths in `data.source` and `model.code` are relative to the folder of the file, or to the working
    directory if --set or a variable sets them. `store.url` is relative to the working directory.

    Args:
        path: the YAML file; the digits example if None.
        overrides: `key=value` with dotted keys and YAML values.
        environ: the environment variables.
        store: the store of the environment; overrides that of the file.

    Raises:
        ConfigError: lists every error with its origin, the value and the remedy.
    """
    document = Document.read(path) if path else Document(Parsed(deepcopy(DIGITS)), "the digits configuration")
    if store:
        document.add(Parsed({"store": store.model_dump(exclude_unset=True)}), "the store of the environment")
    # environments/load.py reads the variables of `environment`
    variables = {key: text for key, text in environ.items() if not key.startswith("MODELYARD_ENVIRONMENT__")}
    document.add_variables(variables, Config.model_fields)
    document.add_overrides([override for override in overrides if not override.startswith("environment.")])
    config = validate(document, Config)
    _check_urls(config, document)
    _check_code(config, document)
    return config


def check_variables(environ: Mapping[str, str]) -> None:
    """Check that variables such as MODELYARD_TRAINING__EPOCHS name a section."""
    for variable in sorted(environ):
        section, separator, _ = variable.removeprefix(PREFIX).lower().partition("__")
        if separator and variable.startswith(PREFIX):
            _check_section(section, variable, [*Config.model_fields, "environment"])


def check_overrides(overrides: Sequence[str], sections: Sequence[str]) -> None:
    """Check that each `key=value` is in a section that the command reads."""
    for override in overrides:
        section, separator, _ = override.partition("=")[0].partition(".")
        if separator:
            _check_section(section, f"--set {override}", sections)
        else:
            raise ConfigError(
                f"--set {override}: this is not SECTION.KEY=VALUE. Write it as --set {sections[0]}.…"
            )


def _check_section(section: str, origin: str, sections: Sequence[str]) -> None:
    if section not in sections:
        hint = suggest(section, sections)
        raise ConfigError(f"{origin}: {section} is not a section that this command reads{hint}")


def load_section(
    name: str,
    kind: type[S],
    overrides: Sequence[str] = (),
    environ: Mapping[str, str] = os.environ,
    defaults: S | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
) -> S:
    """Return one section from options, --set, variables and defaults, without a configuration file.

    `overrides` are `key=value`, with the section's name in the key. `defaults` replace those of the class.
    `options` are the values of command-line options by key of the section; None is ignored.

    Raises:
        ConfigError: see `load`.
    """
    values = defaults.model_dump(exclude_unset=True) if defaults else {}
    document = Document(Parsed({name: values}), f"the section {name}")
    document.add_variables(environ, (name,), f"{PREFIX}{name.upper()}_")
    document.add_overrides(overrides)
    for key, value in options.items():
        if value is not None:
            document.set((name, key), json.dumps(value), f"--{key.replace('_', '-')}")
    return validate(document, kind, (name,))


def _check_urls(config: Config, document: Document) -> None:
    """Reject URLs that no storage supports, without opening them."""
    code = config.model.code or ""
    uploaded_code = code if UPLOADED_CODE.fullmatch(code) else None
    for key, url in (
        ("data.source", config.data.source),
        ("store.url", config.store.url),
        ("model.code", uploaded_code),
    ):
        try:
            if url:
                find_storage(url, key, None if is_path(url) else redact_url(url))
        except ConfigError as error:
            raise ConfigError(f"{document.origin(tuple(key.split('.')))}: {error}") from error


def _check_code(config: Config, document: Document) -> None:
    """Check that folder, module and function of `model.build` exist, without executing code."""
    code, build = config.model.code, config.model.build
    if not code or not build or UPLOADED_CODE.fullmatch(code):
        return
    folder = Path(code)
    if not folder.is_dir():
        raise ConfigError(
            f"{document.origin(('model', 'code'))}: model.code is {code!r}, which is not a local folder. "
            "Set it to the folder with the module of model.build."
        )
    module, _, function = build.partition(":")
    path = folder.joinpath(*module.split("."))
    prefix = f"{document.origin(('model', 'build'))}: model.build is {build}, but"
    if not path.is_dir() and not any(path.parent.glob(f"{path.name}.*")):
        hint = did_you_mean(module, [file.stem for file in folder.glob("*.py")]) or "."
        raise ConfigError(f"{prefix} {code} has no {module.replace('.', '/')}.py{hint}")
    files = (path / "__init__.py", path.with_name(f"{path.name}.py"))
    file = next((file for file in files if file.is_file()), None)
    if file is None:  # a compiled module
        return
    try:
        names = set(_top_level_names(ast.parse(file.read_bytes())))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{prefix} {file} is not valid Python: {error}.") from error
    if names and not names & {function, "*", "__getattr__"}:
        hint = did_you_mean(function, sorted(names)) or ". Define it."
        raise ConfigError(f"{prefix} {file} defines no {function}{hint}")


def _top_level_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that a module defines or imports at the top level."""
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield child.name
            case ast.alias():
                yield child.asname or child.name
            case ast.Name(ctx=ast.Store()):
                yield child.id
            case _:
                yield from _top_level_names(child)
