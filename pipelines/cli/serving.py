"""`serve` and `predict`."""

from pathlib import Path
from typing import Annotated

import typer

from modelyard.pipelines.cli.options import (
    CertificateAuthorities,
    EnvironmentName,
    ModelName,
    Output,
    OutputFormat,
    StoreUrl,
    check_server_url,
    print_json,
    print_rows,
)

Version = Annotated[
    int | None, typer.Option(min=1, metavar="VERSION", help="Version number. Default: the champion.")
]


def serve(
    name: ModelName,
    version: Version = None,
    host: Annotated[
        str | None,
        typer.Option(metavar="HOST", help="Host name or IP address to listen on. Default: serving.host."),
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            metavar="PORT",
            help="Port to listen on, or 0 for any free port. Default: serving.port.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="File of bearer tokens, one per line. Default: serving.token_file."
        ),
    ] = None,
    tls_cert: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file with the certificate chain. Default: serving.tls_cert."),
    ] = None,
    tls_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="PEM file with the private key. Default: serving.tls_key."),
    ] = None,
    access_log: Annotated[
        bool | None, typer.Option("--access-log", help="Write a JSON line to stdout for each request.")
    ] = None,
    store: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Model store: gs://bucket/prefix, file:///path or a path. Default: MODELYARD_STORE__URL, "
            "then the store of the environment `local`, then .modelyard/models.",
        ),
    ] = None,
) -> None:
    """Serve a model over HTTP.

    Without --version, the server follows the champion: it loads a new champion without dropping requests. The
    defaults are in the section `serving` of the configuration with which the version was trained; environment
    variables and options override them.
    """
    from modelyard.pipelines import api

    files = {"token_file": token_file, "tls_cert": tls_cert, "tls_key": tls_key}
    settings = {"host": host, "port": port, "access_log": access_log, **files}
    api.serve(name, version, store_url=store, settings=settings)


def predict(
    name: ModelName,
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE", help="Image files, or .npy files with one or more examples."),
    ],
    version: Version = None,
    store: StoreUrl = None,
    url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            callback=check_server_url,
            help="URL of a running server, such as http://host:8501.",
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --url: file whose first line is the bearer token."),
    ] = None,
    ca: CertificateAuthorities = None,
    environment: EnvironmentName = "local",
    output: OutputFormat = Output.TEXT,
) -> None:
    """Print the predictions of a model for images or arrays.

    Sends the examples to the server at --url or, if the environment is a cluster and --store is not set, to
    the model's server on the cluster. Otherwise, this process loads the model from the store.
    """
    from modelyard.pipelines import api

    model = api.load_model(
        name,
        version,
        store_url=store,
        environment=environment,
        server_url=url,
        token_file=token_file,
        ca=ca,
    )
    predictions = api.predict(model, files)
    if output is Output.JSON:
        values = [prediction.model_dump(mode="json") for prediction in predictions]
        print_json({"model": name, "version": model.version, "predictions": values})
    else:
        print_rows(
            [(prediction.example, prediction.text, prediction.note) for prediction in predictions],
            ("example", "prediction", ""),
        )
