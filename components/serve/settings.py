"""`serving`: how the server listens, and its limits."""

from pydantic import Field

from modelyard.components.server import PORT
from modelyard.components.settings import Settings


class Serving(Settings):
    """How the server listens, and its limits."""

    host: str = Field(default="127.0.0.1", description="Address to listen on.")
    port: int = Field(default=PORT, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    threads: int = Field(default=1, ge=1, le=256, description="Threads of ONNX Runtime per request.")
    max_body_bytes: int = Field(
        default=32 * 2**20, ge=1, description="Largest request body; a larger one gets 413."
    )
    max_batch: int = Field(default=1024, ge=1, description="Most examples in a request; more get 413.")
    max_queue: int = Field(
        default=64,
        ge=1,
        description="Most requests in progress; more get 503 with Retry-After.",
    )
    body_timeout: float = Field(
        default=10.0, gt=0, description="Seconds in which a request must have arrived whole (408)."
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
        default=1.0, gt=0, description="Seconds between looks at the champion pointer."
    )
