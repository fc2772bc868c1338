"""From an error to a message and an exit code: one paragraph for people, one object for scripts."""

import itertools
import json
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer

from modelyard.components.errors import ModelyardError, of_machine

INTERRUPTED = 130
UsageError: Any = typer.BadParameter.__base__
_command = cache(typer.main.get_command)


class Interrupted(Exception):  # noqa: N818 - no error
    """Ctrl-C; the message says what it does, and how to go on."""


def run_guarded(app: typer.Typer, arguments: Sequence[str]) -> int:
    """Run a command line and return its exit code.

    A ModelyardError has the code of its class, a wrong command line 2, Ctrl-C 130, and a bug 1: its
    traceback goes to a file, or to the screen with --debug.
    """
    as_json, debug = wants_json(arguments), "--debug" in arguments
    try:
        code = _command(app)(list(arguments), prog_name="modelyard", standalone_mode=not as_json)
        if code == INTERRUPTED and as_json:  # Typer has told people already
            report("Interrupted", "Stopped by Ctrl-C. Run it again: what is done is cached.", code, as_json)
    except KeyboardInterrupt:
        code = INTERRUPTED
    except Interrupted as interrupted:
        code = report("Interrupted", str(interrupted), INTERRUPTED, as_json)
    except UsageError as error:
        code = report("UsageError", error.format_message(), 2, as_json)
    except ModelyardError as error:
        if debug:
            traceback.print_exception(error)
        code = report(type(error).__name__, str(error), error.exit_code, as_json)
    except Exception as error:
        if known := of_machine(error):
            if debug:
                traceback.print_exception(error)
            code = report(type(known).__name__, str(known), known.exit_code, as_json)
        else:
            code = report(type(error).__name__, bug_message(error, debug), 1, as_json)
    return code if isinstance(code, int) else 0


def wants_json(arguments: Sequence[str]) -> bool:
    """Say whether a command line asks for JSON; also one that cannot be parsed."""
    pairs = itertools.pairwise(arguments)
    return "--output=json" in arguments or ("--output", "json") in pairs


def report(kind: str, message: str, exit_code: int, as_json: bool) -> int:
    """Tell what went wrong, to people on stderr or to a script on stdout, and return the exit code."""
    if as_json:
        error = {"kind": kind, "message": message, "exit_code": exit_code}
        typer.echo(json.dumps({"error": error}, indent=2))
    else:
        typer.echo(typer.style("error: ", fg="red", bold=True) + message, err=True)
    return exit_code


def bug_message(error: Exception, debug: bool) -> str:
    """Show or keep the traceback of a bug, and return what to tell about it."""
    what = f"{type(error).__name__}: {error}. This is a bug in modelyard"
    if debug:
        traceback.print_exception(error)
        return f"{what}; the traceback is above."
    try:
        from datetime import datetime

        from modelyard.pipelines.runners.runs import home

        path = home() / "errors" / f"{datetime.now():%Y%m%d-%H%M%S}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        command = f"{sys.argv}\n{''.join(traceback.format_exception(error))}"
        path.write_text(command, encoding="utf-8")
    except (OSError, ModelyardError):
        return f"{what}; `modelyard --debug …` shows the traceback."
    return f"{what}; the traceback is in {path}, and `modelyard --debug …` shows it."
