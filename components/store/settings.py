"""The section `store` of the configuration."""

from pydantic import Field

from modelyard.components.settings import Settings

MODEL_NAME = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"


class Store(Settings):
    """The model store."""

    url: str = Field(
        default=".modelyard/models",
        description="gs://bucket/prefix, file:///path, a URL of an installed storage package, or a path "
        "relative to the working directory.",
    )
    endpoint: str | None = Field(default=None, description="URL of a GCS emulator, for gs:// in tests.")
    user_project: str | None = Field(
        default=None,
        description="Google Cloud project that is billed for requests, if the bucket has Requester Pays.",
    )
