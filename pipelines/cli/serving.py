"""`serve` and `predict`: answers from a version in the model store."""

import json
from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    StoreUrl,
    emit,
    open_store,
    show_rows,
    store_section,
)

Version = Annotated[
    int | None,
    typer.Option("--version", min=1, metavar="VERSION", help="The version. Default: the champion."),
]


def serve(
    name: ModelName,
    version: Version = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; default: serving.host.")] = None,
    port: Annotated[
        int | None,
        typer.Option(min=0, max=65535, help="Port; 0 takes a free one; default: serving.port."),
    ] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="File with bearer tokens, one a line; default: serving.token_file.")
    ] = None,
    tls_cert: Annotated[
        Path | None, typer.Option(help="Certificate chain in PEM; default: serving.tls_cert.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="Its key in PEM; default: serving.tls_key.")] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Write a line of JSON to stdout for each request.")
    ] = None,
    store: StoreUrl = None,
) -> None:
    """Serve a model over HTTP.

    Without --version it serves the champion, and switches to a new one without dropping a request. Address,
    limits and access come from the section `serving` of the run that made the version; options and
    environment variables override them.
    """
    from modelyard.components.serve.server import serve
    from modelyard.components.serve.settings import Serving
    from modelyard.pipelines.serving.platforms import recorded_manifest, recorded_section

    files = {"token_file": token_file, "tls_cert": tls_cert, "tls_key": tls_key}
    options = {"host": host, "port": port, "access_log": access_log}
    options |= {key: str(path) for key, path in files.items() if path}
    overrides = [f"serving.{key}={json.dumps(value)}" for key, value in options.items() if value is not None]
    manifest = recorded_manifest(open_store(store), name, version)
    serve(name, store_section(store), recorded_section("serving", Serving, overrides, manifest), version)


def predict(
    name: ModelName,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE…", help="Image files, or .npy files with one example or many."),
    ],
    version: Version = None,
    store: StoreUrl = None,
    url: Annotated[
        str | None,
        typer.Option("--url", metavar="ENDPOINT", help="URL of a running server, as http://host:8501."),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(help="File whose first line is the token that the server at --url asks for."),
    ] = None,
    ca: Annotated[
        Path | None,
        typer.Option(
            exists=True,
            dir_okay=False,
            help="Certificates in PEM that vouch for that of the server at --url.",
        ),
    ] = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Predict the answers to examples.

    The model is loaded from the store, or a running server is used: --url, or that of the environment.
    """
    from modelyard.components.errors import ConfigError
    from modelyard.components.server import HttpServer, read_tokens
    from modelyard.pipelines.environments.load import load_environment
    from modelyard.pipelines.serving import prediction
    from modelyard.pipelines.serving.platforms import find_server

    env = load_environment(environment)
    model: prediction.Model
    if url:
        token = read_tokens(str(token_file), "--token-file")[0] if token_file else None
        server = HttpServer(url.rstrip("/"), proxies=True, token=token, ca=str(ca) if ca else None)
        model = prediction.RemoteModel(server, name, version)
    elif token_file or ca:
        raise ConfigError("--token-file and --ca are for a server at --url: give that, or leave them out.")
    elif env.on_cluster and store is None:
        model = prediction.RemoteModel(find_server(name, env), name, version)
    else:
        model = prediction.LocalModel(open_store(store, environment), name, version)
    answers = prediction.predict(model, files)
    if output is Output.JSON:
        predictions = [answer.model_dump(mode="json") for answer in answers]
        emit({"model": name, "version": model.version, "predictions": predictions})
    else:
        show_rows([(one.example, one.answer, one.note) for one in answers], ("example", "answer", ""))
