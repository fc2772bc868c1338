"""The command line of modelyard in this process."""

import json
from dataclasses import dataclass
from typing import Any

import pytest

from modelyard.pipelines.cli import invoke


@dataclass
class CommandResult:
    """The exit code and output of a command."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class CommandLine:
    """Runs commands, each with these options appended."""

    def __init__(self, capsys: pytest.CaptureFixture[str], *options: str) -> None:
        self._capsys, self._options = capsys, options

    def __call__(self, *arguments: object) -> CommandResult:
        try:
            code = invoke([*map(str, arguments), *self._options])
        except SystemExit as error:  # from Typer for text output
            code = int(error.code or 0)
        return CommandResult(code, *self._capsys.readouterr())

    def json(self, *arguments: object) -> Any:
        """Return the JSON output of a command."""
        return self(*arguments, "--output", "json").json
