"""`serving`: how the server listens, and its limits."""

from typing import Self

from pydantic import Field, model_validator

from modelyard.components.server import PORT
from modelyard.components.settings import Settings


class Serving(Settings):
    """How the server listens, and its limits."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    threads: int = Field(default=1, ge=1, le=256, description="Threads of ONNX Runtime per request.")
    max_body_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Maximum size of a request body (413); null: by the container's memory, at most 32 MiB.",
    )
    max_batch: int = Field(default=1024, ge=1, description="Maximum number of examples in a request (413).")
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Maximum pixels of an image (400); a request may have four times as many; null: by the "
        "container's memory, at most 16 million.",
    )
    max_queue: int = Field(
        default=64,
        ge=1,
        description="Maximum number of requests that have arrived and are not answered (503, Retry-After).",
    )
    body_timeout: float = Field(
        default=10.0, gt=0, description="Seconds in which a request must have arrived whole (408)."
    )
    request_timeout: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after its arrival in which the execution of a request must begin (504); the "
        "header X-Request-Timeout lowers it.",
    )
    drain_timeout: float = Field(
        default=20.0, gt=0, description="Seconds that requests have to finish after SIGTERM."
    )
    linger: float = Field(
        default=0.0,
        ge=0,
        description="Seconds that requests are still taken after SIGTERM, and clients asked to close their "
        "connections, before the server drains; on a cluster at least 5.",
    )
    poll_interval: float = Field(
        default=1.0,
        gt=0,
        description="Seconds between looks at the champion pointer, tokens and certificate.",
    )
    token_file: str | None = Field(
        default=None,
        description="File with bearer tokens, one a line, without which requests get 401; it is read again "
        "when it changes. In pods: environment.serving.token_secret.",
    )
    tls_cert: str | None = Field(
        default=None,
        description="PEM file with the certificate chain for TLS; it is read again when it changes. In pods: "
        "environment.serving.tls_secret.",
    )
    tls_key: str | None = Field(
        default=None, description="PEM file with the private key of tls_cert, not encrypted."
    )
    access_log: bool = Field(
        default=False, description="Write a line of JSON to stdout for each request that was answered."
    )

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("serving.tls_cert and serving.tls_key go together: set both, or neither")
        return self
