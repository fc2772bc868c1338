"""`python -m modelyard.components.serve --store JSON --serving JSON --name NAME [--version V] [--digest D]`.

When the server is ready, it writes a JSON line with its URL to stdout, or to the file descriptor --ready-fd.
Its log is on stderr. It exits with 0 after SIGTERM, or with the exit code of its error; in a pod it also
writes the error to the termination log, as steps do.
"""

import argparse
import gc
import os
import sys
from contextlib import suppress

from modelyard.components import lifeline
from modelyard.components.errors import ConfigError, ModelyardError


def main() -> None:
    """Read the command line and serve."""
    lifeline.follow()
    parser = argparse.ArgumentParser(
        prog="python -m modelyard.components.serve", description="Serve a model."
    )
    parser.add_argument("--name", required=True, help="the model's name")
    parser.add_argument("--store", default="{}", help="section `store` as JSON")
    parser.add_argument("--serving", default="{}", help="section `serving` as JSON")
    parser.add_argument("--version", type=int, help="the version to serve; default: follow the champion")
    parser.add_argument("--digest", help="SHA-256 that the version's manifest.json must have")
    parser.add_argument("--ready-fd", type=int, default=1, help="file descriptor for the ready line")
    options = parser.parse_args()
    if options.digest and options.version is None:
        parser.error("--digest needs --version")
    try:
        _serve(options)
    except ModelyardError as error:
        from modelyard.components.step import failure_document, termination_log

        print(f"{type(error).__name__}: {error}", file=sys.stderr)  # noqa: T201
        if path := termination_log():
            with suppress(OSError):  # the error is also in the log
                path.write_bytes(failure_document(error, None))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)


def _serve(options: argparse.Namespace) -> None:
    from pydantic import ValidationError

    from modelyard.components.artifacts import describe_validation
    from modelyard.components.serve.server import serve
    from modelyard.components.serve.settings import Serving
    from modelyard.components.store.settings import Store

    try:
        store, serving = Store.from_json(options.store), Serving.from_json(options.serving)
    except ValidationError as error:
        raise ConfigError(
            f"The section {error.title.lower()} is invalid: {describe_validation(error)}. Correct the "
            "configuration."
        ) from error
    serve(options.name, store, serving, options.version, options.digest, options.ready_fd)


if __name__ == "__main__":
    gc.disable()  # imports create no garbage; `serve` enables it again when the server is ready
    os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")  # the search for plugins takes 10 ms
    main()
