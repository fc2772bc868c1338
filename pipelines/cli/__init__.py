"""The command line, `modelyard`: one file per group of commands, each command a call into the library.

app            the commands together
options        what several commands take, and how they print
failures       from an error to a message and an exit code
pipeline       run, compile, report
run            what `run` shows
plan           plan
models         models list, show, promote, history; rollback
serving        serve, predict
submit         submit
runs           runs list, show, cancel, retry; logs
follow         what `submit --wait` and `runs show` show
explain        explain
schedule       schedule apply, list, pause, resume, run-now, delete
configuration  config show, schema, init, reference
doctor         doctor

What a command needs is imported when it runs: `modelyard --help` pays for Typer and rich alone.
"""

import gc
import sys
from collections.abc import Sequence


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return its exit code."""
    from modelyard.pipelines.cli.app import app
    from modelyard.pipelines.cli.failures import run_guarded

    return run_guarded(app, arguments)


def main() -> None:
    """Run the command line of this process and leave with its exit code."""
    gc.set_threshold(200_000)  # imports make many objects and little garbage: a tenth of a second less
    sys.exit(invoke(sys.argv[1:]))
