"""`doctor`: whether this machine can run the pipeline and serve."""

import typer

from modelyard.pipelines.cli.options import Output, OutputFormat, StoreUrl, emit, show_rows, store_section


def doctor(store: StoreUrl = None, output: OutputFormat = Output.TEXT) -> None:
    """Check this machine.

    Python, packages, CPU, disk, model store, port. The exit code is 1 if a check fails.
    """
    from modelyard.components.serve.settings import Serving
    from modelyard.pipelines.config.config import load_section
    from modelyard.pipelines.maintenance.doctor import checkup

    checks = checkup(store_section(store), load_section("serving", Serving))
    if output is Output.JSON:
        emit([check._asdict() for check in checks])
    else:
        show_rows([("✓" if check.ok else "✗", check.name, check.found) for check in checks])
    raise typer.Exit(0 if all(check.ok for check in checks) else 1)
