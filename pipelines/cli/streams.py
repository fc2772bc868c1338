"""stdout and stderr of any encoding, and whether or not their reader is still there.

A character that the encoding lacks is replaced, ✓ by `ok`. What nobody reads (`modelyard … | head -1`) is
dropped: the command goes on and ends with its exit code. A stream that is closed at the start is /dev/null.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any

REPLACEMENTS = {"✓": "ok", "✗": "x", "–": "-", "…": "...", "·": ".", "▶": ">", "×": "x"}


class _OutputFile(io.FileIO):
    """A file descriptor that is /dev/null once it cannot be written."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.fileno())
            os.close(nowhere)
            return len(data)


class _OutputText(io.TextIOWrapper):
    """Text for a descriptor. It hides its buffer, to which Click writes UTF-8 when the encoding is ASCII."""

    buffer = None  # type: ignore[assignment]

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.file = _OutputFile(descriptor, "w", closefd=False)
        super().__init__(
            io.BufferedWriter(self.file), encoding, errors="modelyard", line_buffering=self.file.isatty()
        )


def prepare() -> None:
    """Replace stdout and stderr of this process."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    codecs.register_error("modelyard", _replace)
    sys.stdout, sys.stderr = (
        _OutputText(number, getattr(stream, "encoding", None) or "utf-8")
        for number, stream in ((1, sys.stdout), (2, sys.stderr))
    )


def write_error() -> OSError | None:
    """Return why stdout could not be written, if it could not."""
    sys.stdout.flush()
    return sys.stdout.file.error if isinstance(sys.stdout, _OutputText) else None


def finish(code: int) -> int:
    """Return the exit code of a command that ended with `code`: 1 if its output was lost on a full disk."""
    if (error := write_error()) and error.errno != errno.EPIPE:
        print(f"error: The output cannot be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return code or 1
    return code


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(REPLACEMENTS.get(one, "?") for one in error.object[error.start : error.end]), error.end
