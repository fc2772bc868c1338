"""The section `rollout` of the configuration, and the target of a rollout, which the environment sets."""

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
    """How a version is rolled out on a cluster, and when it is rolled back."""

    golden_tolerance: float = Field(
        default=1e-4,
        ge=0,
        lt=1,
        description="Maximum difference between the server's and the recorded prediction for a golden "
        "request: between probabilities, or between values in standard deviations of the training targets.",
    )
    canary_share: float = Field(
        default=0.1,
        gt=0,
        le=0.5,
        description="The candidate's share of the replicas, and so of the requests, during canary "
        "analysis. The candidate has at least one replica.",
    )
    bake_seconds: float = Field(
        default=60.0, ge=0, description="Seconds of canary analysis before the candidate is promoted."
    )
    min_requests: int = Field(
        default=100,
        ge=1,
        description="Minimum number of requests during canary analysis. If clients send fewer, golden "
        "requests are sent.",
    )
    max_error_rate: float = Field(
        default=0.01, ge=0, le=1, description="Maximum share of the candidate's executed requests that fail."
    )
    max_latency_ratio: float = Field(
        default=2.0,
        ge=1,
        description="Maximum mean latency of the candidate, as a multiple of that of stable over "
        "the same period.",
    )
    latency_margin: float = Field(
        default=0.01, ge=0, description="Seconds of additional latency that are always allowed."
    )
    max_restarts: int = Field(
        default=0,
        ge=0,
        description="Maximum number of restarts of the candidate's containers during canary analysis.",
    )
    ready_timeout: float = Field(
        default=120.0,
        gt=0,
        description="Maximum seconds from the start of a pod's containers until it is ready.",
    )
    store_timeout: float = Field(
        default=120.0, ge=0, description="Maximum seconds to wait for a model store that does not respond."
    )


class Resources(Settings):
    """The resource requests of a server. The memory limit equals the memory request; CPU is not limited."""

    cpu: str = Field(default="100m", description="CPU request, such as 500m or 2.")
    memory: str = Field(default="512Mi", description="Memory request and limit.")


class Target(Settings):
    """Where servers run: on this machine, or on Kubernetes."""

    platform: str = Field(default="local", description="The serving platform, a name in PLATFORMS.")
    namespace: str = Field(default="modelyard-serving", description="Namespace of the servers.")
    image: str | None = Field(
        default=None,
        description="Reference of the image `serve`, with its digest; not needed if no server is started.",
    )
    service_account: str = Field(
        default="modelyard-serve", description="Service account of the servers' pods."
    )
    replicas: int = Field(
        default=1, ge=1, description="Initial replicas of stable; later scaling is not undone."
    )
    resources: Resources = Field(default=Resources(), description="Resource requests of each server.")
    start_timeout: float = Field(
        default=300.0, gt=0, description="Maximum seconds until a pod is scheduled and its containers start."
    )
    token_secret: str | None = Field(
        default=None, description="Secret whose key `token` has the servers' tokens, one per line."
    )
    tls_secret: str | None = Field(
        default=None, description="Secret of type kubernetes.io/tls with the servers' certificate."
    )


def check_server_access(serving: Mapping[str, Any], target: Target) -> None:
    """Check that servers in pods require a token and TLS if the section `serving` does.

    Raises:
        ConfigError: the section names files of this machine, and the target names no Secret for pods.
    """
    for key, secret in (("token_file", "token_secret"), ("tls_cert", "tls_secret")):
        if target.platform != "local" and serving.get(key) and not getattr(target, secret):
            raise ConfigError(
                f"serving.{key} is {serving[key]}, a file that pods do not have. Name a Secret in "
                f"environment.serving.{secret}, or set serving.{key} to null."
            )
