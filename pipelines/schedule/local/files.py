"""What schedules of this machine are written to, with a sentence for each folder that cannot be changed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelyard.components.errors import ConfigError


@contextmanager
def changing(folder: Path, variable: str) -> Iterator[None]:
    """Change the files of a folder.

    Args:
        folder: where.
        variable: of the environment, which leads to the folder.

    Raises:
        ConfigError: it cannot be changed.
    """
    try:
        yield
    except OSError as error:
        raise ConfigError(
            f"A schedule of this machine is kept in {folder}, which cannot be changed: "
            f"{error.strerror or error}. Change its permissions, or set {variable} to a folder that is yours."
        ) from error


def write(path: Path, text: str, variable: str) -> None:
    """Write a file whole, or leave what was there.

    Raises:
        ConfigError: it cannot be written.
    """
    partial = path.with_suffix(".partial")
    with changing(path.parent, variable):
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(text, encoding="utf-8")
        partial.replace(path)
