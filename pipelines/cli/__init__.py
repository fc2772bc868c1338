"""The command line, `modelyard`: one file per group of commands, each command a call into the library.

app            the commands together
options        options of several commands, and how they print
failures       from an error to a message and an exit code
streams        stdout and stderr of any encoding, with or without a reader
pipeline       run, compile
plan           plan
progress       a run while it works and when it has ended, for run, submit --wait, runs show and runs retry
models         models list, show, promote, history; rollback
rollouts       deploy; rollout status, promote, abort
serving        serve, predict
submit         submit
runs           runs list, show, compare, logs, cancel, retry; explain; report
schedule       schedule apply, list, pause, resume, run-now, delete
configuration  config show, schema, init, reference (reference.py)
maintenance    gc, doctor

A command imports what it needs when it runs: `modelyard --help` loads Typer alone.
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
    from modelyard.pipelines.cli import streams

    streams.prepare()
    gc.set_threshold(200_000)  # imports make many objects and little garbage: a tenth of a second less
    try:
        code = invoke(sys.argv[1:])
    except SystemExit as end:  # by Typer
        code = end.code if isinstance(end.code, int) else 0
    sys.exit(streams.finish(code))
