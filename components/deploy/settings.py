"""`rollout`: how a version is rolled out. The target, where it runs, comes from the environment."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field

from modelyard.components.errors import ConfigError
from modelyard.components.settings import Settings

PLATFORMS = {
    "local": "modelyard.components.deploy.platforms.local:LocalPlatform",
    "deployment": "modelyard.components.deploy.platforms.deployment:DeploymentPlatform",
}
"""The serving platforms by name: the module and the class of each."""


class Rollout(Settings):
    """How a version is rolled out on a cluster, and what rolls it back."""

    golden_tolerance: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Largest difference between what the server answers to a golden request and what "
        "evaluate saw: of a probability, or of a value in standard deviations of the training targets.",
    )
    canary_share: float = Field(
        default=0.1,
        gt=0,
        le=0.5,
        description="Share of replicas, and so of requests, that the candidate gets in the canary analysis; "
        "it has at least one replica.",
    )
    bake_seconds: float = Field(
        default=60.0, ge=0, description="Seconds of canary analysis before the candidate is promoted."
    )
    min_requests: int = Field(
        default=100,
        ge=1,
        description="Minimum number of requests in the canary analysis; golden requests are sent when "
        "clients send fewer.",
    )
    max_error_rate: float = Field(
        default=0.01,
        ge=0,
        le=1,
        description="Largest share of requests that end with a server's error (5xx).",
    )
    max_latency_ratio: float = Field(
        default=2.0, ge=1, description="Largest mean time of an answer, as a multiple of stable's meanwhile."
    )
    latency_margin: float = Field(
        default=0.01, ge=0, description="Seconds by which the candidate may always be slower than stable."
    )
    max_restarts: int = Field(
        default=0,
        ge=0,
        description="Maximum number of restarts of the candidate's containers during the canary analysis.",
    )
    ready_timeout: float = Field(
        default=120.0, gt=0, description="Seconds that a pod has from its start on a node until it is ready."
    )
    store_timeout: float = Field(
        default=120.0, ge=0, description="Seconds that a model store which does not answer is waited for."
    )


class Resources(Settings):
    """What a server asks of its node; its limits are the same, but for the processor, which has none."""

    cpu: str = Field(default="100m", description="Cores that are kept for it, as 500m or 2.")
    memory: str = Field(default="512Mi", description="Memory that is kept for it and that it cannot exceed.")


class Target(Settings):
    """Where the server runs: on this machine while it is verified, or on Kubernetes for clients."""

    platform: str = Field(default="local", description="The serving platform, a name in PLATFORMS.")
    namespace: str = Field(default="modelyard-serving", description="Namespace of the servers.")
    image: str | None = Field(
        default=None,
        description="Reference of the image `serve`, with its digest; not needed where no server is started.",
    )
    service_account: str = Field(default="modelyard-serve", description="Account of the servers' pods.")
    replicas: int = Field(
        default=1,
        ge=1,
        description="Servers of stable to begin with; scaling them later is not undone.",
    )
    resources: Resources = Field(default=Resources(), description="What each server asks of its node.")
    start_timeout: float = Field(
        default=300.0, gt=0, description="Seconds that a pod has until a node that is being made takes it."
    )
    token_secret: str | None = Field(
        default=None, description="Secret whose key token has the tokens of the servers, one a line."
    )
    tls_secret: str | None = Field(
        default=None, description="Secret of type kubernetes.io/tls with the certificate of the servers."
    )


def check_server_access(serving: Mapping[str, Any], target: Target) -> None:
    """Check that servers in pods are not open to more clients than the section `serving` asks for.

    Raises:
        ConfigError: it names files, and the target has no Secret for pods.
    """
    for key, secret in (("token_file", "token_secret"), ("tls_cert", "tls_secret")):
        if target.platform != "local" and serving.get(key) and not getattr(target, secret):
            raise ConfigError(
                f"serving.{key} is {serving[key]}, which pods do not have. Name the Secret that they mount "
                f"instead in environment.serving.{secret}, or set serving.{key} to null."
            )
