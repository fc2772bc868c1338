"""Load an environment: `local`, `kind`, `gke`, or a file of the user.

    environment = load_environment("kind", ["environment.steps.train.cpu=2"])

For a name, `./environments/NAME.yaml` is merged key by key into the file of that name in `shipped`.
For a path, only that file is read. The order of precedence is that of the configuration:
`--set environment.KEY`, the variable MODELYARD_ENVIRONMENT__KEY, the file, the default.
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from modelyard.components.artifacts import read_small_file
from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.config import check_variables
from modelyard.pipelines.config.layers import PREFIX, Document
from modelyard.pipelines.config.text import Parsed, parse_file
from modelyard.pipelines.config.validation import suggest, validate
from modelyard.pipelines.environments.environment import IMAGES_FILE, Environment
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES

SHIPPED = Path(__file__).parent / "shipped"
USER_FOLDER = Path("environments")
SECTION = "environment"


def load_environment(
    name_or_path: str = "local", overrides: Sequence[str] = (), environ: Mapping[str, str] = os.environ
) -> Environment:
    """Return the validated environment; `overrides` of other sections are ignored.

    Raises:
        ConfigError: the environment does not exist or is invalid; lists every error with origin and remedy.
    """
    check_variables(environ)
    document = _read_document(name_or_path)
    document.add_variables(environ, (), f"{PREFIX}{SECTION.upper()}__")
    document.add_overrides([override for override in overrides if override.startswith(f"{SECTION}.")])
    environment = validate(document, Environment, (SECTION,))
    record = read_build_record(Path(IMAGES_FILE))
    images = {name: record[name] for name in (*IMAGES, *ACCELERATED_IMAGES) if name in record}
    return environment.model_copy(update={"images": images | environment.images})


def _read_document(name_or_path: str) -> Document:
    """Return the document of an environment: the shipped file, merged with the user's."""
    if name_or_path.endswith((".yaml", ".yml")) or "/" in name_or_path:
        files = [Path(name_or_path)]
    else:
        files = [folder / f"{name_or_path}.yaml" for folder in (SHIPPED, USER_FOLDER)]
    if not (files := [file for file in files if file.is_file()]):
        names = sorted({file.stem for folder in (SHIPPED, USER_FOLDER) for file in folder.glob("*.yaml")})
        hint = suggest(name_or_path, names)
        raise ConfigError(f"There is no environment {name_or_path!r}{hint} Or use the path of a .yaml file.")
    document = Document(Parsed({SECTION: {}}), f"the environment {name_or_path}")
    for file in files:
        parsed = parse_file(file, "environment")
        if not isinstance(parsed.value, dict):
            raise ConfigError(f"{file}: an environment needs keys, such as `kind: kubernetes`.")
        lines = {(SECTION, *keys): line for keys, line in parsed.lines.items()}
        document.add(Parsed({SECTION: parsed.value}, lines), str(file))
    return document


def read_build_record(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file of `make images`; empty if there is no file.

    Raises:
        ConfigError: the file is damaged.
    """
    if not file.is_file():
        return {}
    try:
        return dict(json.loads(read_small_file(file)))
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"{file} is damaged ({error}). Delete it, and run `make images` again for images of your own."
        ) from error
