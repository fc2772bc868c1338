"""The section `serving` of the configuration."""

from typing import Self

from pydantic import Field, model_validator

from modelyard.components.server import PORT
from modelyard.components.settings import Settings


class Serving(Settings):
    """Address, limits and access control of the server."""

    host: str = Field(default="127.0.0.1", description="Host name or IP address to listen on.")
    port: int = Field(default=PORT, ge=0, le=65535, description="Port to listen on; 0: any free port.")
    threads: int = Field(default=1, ge=1, le=256, description="Threads of ONNX Runtime per request.")
    max_body_bytes: int | None = Field(
        default=None,
        ge=1,
        description="Maximum bytes of a request body (413). Default: depends on the container's memory, at "
        "most 32 MiB.",
    )
    max_batch: int = Field(default=1024, ge=1, description="Maximum number of examples in a request (413).")
    max_pixels: int | None = Field(
        default=None,
        ge=1,
        description="Maximum pixels of an image (400); a request may have four times as many in total. "
        "Default: depends on the container's memory, at most 16 million.",
    )
    max_queue: int = Field(
        default=64, ge=1, description="Maximum number of requests in progress (503 with Retry-After)."
    )
    body_timeout: float = Field(
        default=10.0, gt=0, description="Maximum seconds until a request has arrived completely (408)."
    )
    request_timeout: float = Field(
        default=60.0,
        gt=0,
        description="Maximum seconds from the arrival of a request until its execution starts (504). The "
        "header X-Request-Timeout can set a lower value.",
    )
    drain_timeout: float = Field(
        default=20.0, gt=0, description="Maximum seconds to finish requests in progress after SIGTERM."
    )
    linger: float = Field(
        default=0.0,
        ge=0,
        description="Seconds after SIGTERM during which the server still accepts requests, with the response "
        "header `Connection: close`, before it drains; on a cluster at least 5.",
    )
    poll_interval: float = Field(
        default=1.0,
        gt=0,
        description="Seconds between checks of the champion pointer, tokens and certificate.",
    )
    token_file: str | None = Field(
        default=None,
        description="File with a bearer token per line; requests without one of these tokens get 401. "
        "Reloaded when it changes. In pods, environment.serving.token_secret is used instead.",
    )
    tls_cert: str | None = Field(
        default=None,
        description="PEM file with the certificate chain for TLS. Reloaded when it changes. In pods, "
        "environment.serving.tls_secret is used instead.",
    )
    tls_key: str | None = Field(
        default=None, description="PEM file with the unencrypted private key of tls_cert."
    )
    access_log: bool = Field(default=False, description="Write a JSON line to stdout for each request.")

    @model_validator(mode="after")
    def _certificate_has_key(self) -> Self:
        if bool(self.tls_cert) != bool(self.tls_key):
            raise ValueError("serving.tls_cert and serving.tls_key require each other: set both or neither")
        return self
