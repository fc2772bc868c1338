"""`store`: where models live."""

from pydantic import Field

from modelyard.components.settings import Settings

MODEL_NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class Store(Settings):
    """Where models live."""

    url: str = Field(
        default=".modelyard/models",
        description="gs://bucket/prefix, file:///path, a URL of another installed storage, or a path "
        "relative to the working directory.",
    )
    endpoint: str | None = Field(
        default=None,
        description="Address of a GCS emulator, with its scheme; only for gs:// and for tests.",
    )
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that pays for requests, if the bucket has requester pays.",
    )
