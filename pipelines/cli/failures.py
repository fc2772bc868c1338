"""Errors as messages and exit codes: text on stderr, or a JSON object on stdout."""

import itertools
import json
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from modelyard.components.errors import ModelyardError, describe, find_machine_error

INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
_command = cache(typer.main.get_command)


class Interrupted(Exception):  # noqa: N818 - not an error
    """Ctrl-C; the message describes the effect on the run and names the command that continues it."""


def run_command(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    The exit code is that of the ModelyardError, 2 for a wrong command line, 130 for Ctrl-C, 1 for a bug. The
    traceback of a bug is written to a file, or to stderr with --debug.
    """
    as_json, debug = is_json_requested(arguments), "--debug" in arguments
    try:
        code = _command(app)(list(arguments), prog_name="modelyard", standalone_mode=False)
        if code == INTERRUPTED and as_json:
            message = "Interrupted by Ctrl-C. Run the command again: finished steps are cached."
            print_error("Interrupted", message, code, as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Interrupted as interrupted:
        code = print_error("Interrupted", str(interrupted), INTERRUPTED, as_json)
    except UsageError as error:
        error.message = format_usage_error(error)
        if as_json:
            print_error("UsageError", error.format_message(), error.exit_code, as_json)
        else:
            error.show()
        code = error.exit_code
    except typer.Abort:  # Ctrl-C or the end of the input at a confirmation
        code = 1
    except Exception as error:
        known = error if isinstance(error, ModelyardError) else find_machine_error(error)
        if known is None:
            return print_error(type(error).__name__, report_bug(error, debug), 1, as_json)
        if debug:
            traceback.print_exception(error)
        code = print_error(type(known).__name__, str(known), known.exit_code, as_json)
    return code if isinstance(code, int) else 0


def format_usage_error(error: Any) -> str:
    """Return the message of a usage error, without the words of pydantic for an invalid value."""
    from pydantic import ValidationError

    from modelyard.pipelines.config.validation import EXPECTED_VALUES, describe_expected

    if isinstance(error.__cause__, ValidationError):
        detail = error.__cause__.errors()[0]
        if detail["type"] in EXPECTED_VALUES:
            return f"{detail['input']!r} must be {describe_expected(detail)}."
    return str(error.message).removeprefix("Value error, ")


def is_json_requested(arguments: Sequence[str]) -> bool:
    """Return whether a command line has `--output json`, even one that cannot be parsed."""
    pairs = itertools.pairwise(arguments)
    return "--output=json" in arguments or ("--output", "json") in pairs


def print_error(kind: str, message: str, exit_code: int, as_json: bool) -> int:
    """Print an error to stderr, or as JSON to stdout, and return its exit code."""
    if as_json:
        error = {"kind": kind, "message": message, "exit_code": exit_code}
        typer.echo(json.dumps({"error": error}, indent=2))
    else:
        typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)
    return exit_code


def report_bug(error: Exception, debug: bool) -> str:
    """Print or save the traceback of a bug, and return the message."""
    message = f"{describe(error)} This is a bug in modelyard"
    if debug:
        traceback.print_exception(error)
        return f"{message}; the traceback is above."
    try:
        from datetime import datetime

        from modelyard.pipelines.runners.run_folder import home

        path = home() / "errors" / f"{datetime.now():%Y%m%d-%H%M%S}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        text = f"{sys.argv}\n{''.join(traceback.format_exception(error))}"
        path.write_text(text, encoding="utf-8")
    except (OSError, ModelyardError):
        return f"{message}; `modelyard --debug …` prints the traceback."
    return f"{message}; the traceback is in {path}, and `modelyard --debug …` prints it."
