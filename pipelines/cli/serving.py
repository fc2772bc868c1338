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
    models_in,
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
    store: StoreUrl = None,
) -> None:
    """Serve a model over HTTP.

    Without --version it serves the champion, and switches to a new one without dropping a request. Address
    and limits come from the section `serving` of the run that made the version; options and environment
    variables override them.
    """
    from modelyard.components.serve.server import serve
    from modelyard.components.serve.settings import Serving
    from modelyard.components.store.models import open_store
    from modelyard.pipelines.serving.platforms import recorded_manifest, recorded_section

    given = {"host": host, "port": port}
    overrides = [f"serving.{key}={json.dumps(value)}" for key, value in given.items() if value is not None]
    where = store_section(store)
    manifest = recorded_manifest(open_store(where), name, version)
    serve(name, where, recorded_section("serving", Serving, overrides, manifest), version)


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
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Predict the answers to examples.

    The model is loaded from the store, or a running server is used: --url, or that of the environment.
    """
    from modelyard.components.server import HttpServer
    from modelyard.pipelines.environments.load import load_environment
    from modelyard.pipelines.serving import prediction
    from modelyard.pipelines.serving.platforms import find_server

    place = load_environment(environment)
    model: prediction.Model
    if url:
        model = prediction.Endpoint(HttpServer(url.rstrip("/"), proxies=True), name, version)
    elif place.on_cluster and store is None:
        model = prediction.Endpoint(find_server(name, place), name, version)
    else:
        model = prediction.Loaded(models_in(store, environment), name, version)
    answers = prediction.predict(model, files)
    if output is Output.JSON:
        predictions = [answer.model_dump(mode="json") for answer in answers]
        emit({"model": name, "version": model.version, "predictions": predictions})
    else:
        show_rows([(one.example, one.answer, one.note) for one in answers], ("example", "answer", ""))
