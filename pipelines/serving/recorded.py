"""Sections of the configuration as a version's run had them, for commands that serve or roll out by hand."""

from collections.abc import Sequence
from typing import TypeVar

from pydantic import ValidationError

from modelyard.components.artifacts import Manifest
from modelyard.components.settings import Settings
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.config.config import load_section

S = TypeVar("S", bound=Settings)


def manifest_of(models: ModelStore, name: str, version: int | None) -> Manifest | None:
    """Return the manifest of a version, of the champion when None; None when there is no champion.

    Raises:
        NotFoundError: there is no such version.
    """
    champion = models.champion(name) if version is None else None
    version = champion.version if champion else version
    return models.manifest(name, version) if version is not None else None


def section(name: str, kind: type[S], overrides: Sequence[str], manifest: Manifest | None) -> S:
    """Return a section as a version's run had it, or its defaults if that modelyard knew other keys.

    Args:
        name: the section's key.
        kind: its model.
        overrides: `key=value`; those of other sections are left out.
        manifest: the version's.
    """
    try:
        recorded = kind.model_validate(manifest.config.get(name, {})) if manifest else None
    except ValidationError:
        recorded = None
    mine = [one for one in overrides if one.startswith(f"{name}.")]
    return load_section(name, kind, mine, below=recorded)
