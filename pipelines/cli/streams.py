"""stdout and stderr in any encoding, even if the reader of a pipe has closed it.

Characters that the encoding lacks are replaced, such as ✓ with `ok`. If the reader of a pipe has closed it
(`modelyard … | head -1`), the output is discarded; the exit code is still that of the command. A stream that
is closed at the start becomes /dev/null.
"""

import codecs
import errno
import io
import os
import sys
from typing import Any

REPLACEMENTS = {"✓": "ok", "✗": "x", "–": "-", "…": "...", "·": ".", "▶": ">", "×": "x"}


class _OutputFile(io.FileIO):
    """A file descriptor that becomes /dev/null when a write fails."""

    error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = error
            devnull = os.open(os.devnull, os.O_WRONLY)
            os.dup2(devnull, self.fileno())
            os.close(devnull)
            return len(data)


class _OutputText(io.TextIOWrapper):
    """A text stream without `buffer`, to which Click would write UTF-8 when the encoding is ASCII."""

    buffer = None  # type: ignore[assignment]

    def __init__(self, descriptor: int, encoding: str) -> None:
        self.file = _OutputFile(descriptor, "w", closefd=False)
        super().__init__(
            io.BufferedWriter(self.file), encoding, errors="modelyard", line_buffering=self.file.isatty()
        )


def replace_streams() -> None:
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


def get_write_error() -> OSError | None:
    """Return the error of a failed write to stdout, if any."""
    sys.stdout.flush()
    return sys.stdout.file.error if isinstance(sys.stdout, _OutputText) else None


def get_exit_code(code: int) -> int:
    """Return the exit code of the process: `code`, or 1 if output was lost, as on a full disk."""
    if (error := get_write_error()) and error.errno != errno.EPIPE:
        print(f"error: stdout cannot be written: {error.strerror}.", file=sys.stderr)  # noqa: T201
        return code or 1
    return code


def _replace(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    return "".join(
        REPLACEMENTS.get(character, "?") for character in error.object[error.start : error.end]
    ), error.end
