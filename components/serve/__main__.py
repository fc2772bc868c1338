"""`python -m modelyard.components.serve --store JSON --serving JSON --name NAME [--version V] [--digest D]`.

One JSON line says when the server is ready and where: on stdout, or to the open file that --ready-fd names.
The log goes to stderr. It ends with 0 after SIGTERM, or with the exit code of its error; in a pod it leaves
the record of the error, as steps do.
"""

import argparse
import gc
import sys
from contextlib import suppress

from pydantic import ValidationError

from modelyard.components import lifeline
from modelyard.components.errors import ConfigError, ModelyardError
from modelyard.components.serve.settings import Serving
from modelyard.components.step import document, termination_log
from modelyard.components.store.settings import Store


def main() -> None:
    """Read the command line and serve."""
    lifeline.follow()
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.components.serve", description="Serve a model."
    )
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--store", default="{}", help="`store` section as JSON")
    parser.add_argument("--serving", default="{}", help="`serving` section as JSON")
    parser.add_argument("--version", type=int, help="the version to serve; default: follow the champion")
    parser.add_argument("--digest", help="SHA-256 that the version's manifest.json must have")
    parser.add_argument("--ready-fd", type=int, default=1, help="file descriptor that is told it is ready")
    options = parser.parse_args()
    if options.digest and options.version is None:
        parser.error("--digest needs --version")
    try:
        _serve(options)
    except ModelyardError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        if path := termination_log():
            with suppress(OSError):  # the error is in the log, too
                path.write_bytes(document(error, None))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _serve(options: argparse.Namespace) -> None:
    try:
        store, serving = Store.of(options.store), Serving.of(options.serving)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the JSON"
        raise ConfigError(
            f"The {error.title.lower()} section is wrong at {where}: {first['msg']}, got {first['input']!r}."
        ) from error
    gc.disable()  # nothing that a start makes is garbage; the server collects when it is ready
    from modelyard.components.serve.server import serve

    serve(options.name, store, serving, options.version, options.digest, options.ready_fd)


if __name__ == "__main__":
    main()
