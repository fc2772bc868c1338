"""The client of Google Cloud Storage, as the model store and the sources of data use it."""

import os
from typing import Any


def open_client(endpoint: str | None) -> Any:
    """Return a client: of an emulator, without credentials, or of Google with the ones that it finds.

    Raises:
        google.auth.exceptions.GoogleAuthError: it finds none.
    """
    # Else the library looks the bucket itself up in a thread, for traces, and again with every 404.
    os.environ.setdefault("DISABLE_GCS_PYTHON_CLIENT_OTEL_BUCKET_METADATA", "true")
    from google.auth.credentials import AnonymousCredentials
    from google.cloud import storage

    if endpoint is None:
        return storage.Client()
    return storage.Client(
        project="emulator",
        credentials=AnonymousCredentials(),  # type: ignore[no-untyped-call]
        client_options={"api_endpoint": endpoint},
    )


def said(error: Exception) -> str:
    """Return what an exception says, in one short line."""
    return " ".join(str(error).split())[:300]


def no_credentials(error: Exception) -> str:
    """Return what to do when there are no credentials, or they cannot be used."""
    return (
        f"no usable Google credentials ({said(error)}). Run `gcloud auth application-default login`, or give "
        "the step's service account access."
    )
