"""The command line, `modelyard`: one file per group of commands. Each command calls the library.

app            all commands
options        options that several commands have; printing of tables and JSON
help           usage lines and arguments in the help of commands
failures       errors as messages and exit codes
streams        stdout and stderr of any encoding, even without a reader
pipeline       run, plan, compile, submit
progress       progress and summary of a run, for run, submit --wait, runs show and runs retry
models         models list, show, promote, history; rollback
rollouts       deploy; rollout status, promote, abort
serving        serve, predict
runs           runs list, show, compare, logs, cancel, retry; explain; report
schedule       schedule apply, list, pause, resume, run-now, delete
configuration  config show, schema, init, reference (reference.py)
maintenance    gc, doctor

A command imports its dependencies when it runs: `modelyard --help` imports only Typer.
"""

import gc
import os
import sys
from collections.abc import Sequence


def invoke(arguments: Sequence[str]) -> int:
    """Run the command line `arguments` and return its exit code."""
    from modelyard.pipelines.cli.app import app
    from modelyard.pipelines.cli.failures import run_command

    return run_command(app, arguments)


def main() -> None:
    """Run the command line of this process and exit with its code."""
    from modelyard.pipelines.cli import streams

    streams.replace_streams()
    gc.set_threshold(200_000)  # imports make little garbage: saves 0.1 s
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # the search for plugins takes 10 ms
    try:
        code = invoke(sys.argv[1:])
    except SystemExit as error:  # raised by Typer
        code = error.code if isinstance(error.code, int) else 0
    sys.exit(streams.get_exit_code(code))
