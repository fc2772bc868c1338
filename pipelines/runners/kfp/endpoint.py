"""Where Kubeflow Pipelines' API is, and with what one is known there.

The address is `--endpoint`, else KF_PIPELINES_ENDPOINT, else `kfp.endpoint` of the environment. Without one,
it is the Service `ml-pipeline`: directly from a pod, else through the cluster that KUBECONFIG names.

Credentials come from the environment's variables alone, so that they are in no file and on no command line:
KF_PIPELINES_TOKEN or KF_PIPELINES_COOKIE, else the token that Kubernetes mounts into a pod for Kubeflow
Pipelines (KF_PIPELINES_SA_TOKEN_PATH says where, if not where the SDK looks).
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from modelyard.components.errors import ConfigError
from modelyard.pipelines.environments.environment import URL, Environment

VARIABLE = "KF_PIPELINES_ENDPOINT"
TOKEN, COOKIE, MOUNTED = "KF_PIPELINES_TOKEN", "KF_PIPELINES_COOKIE", "KF_PIPELINES_SA_TOKEN_PATH"
WHERE_MOUNTED = "/var/run/secrets/kubeflow/pipelines/token"
SERVICE, PORT = "ml-pipeline", 8888


@dataclass(frozen=True)
class Endpoint:
    """An address, who named it, and the namespace to which one must tunnel, if one must."""

    url: str
    origin: str
    tunnel: str | None = None

    def __str__(self) -> str:
        if self.tunnel:
            return f"the Service {SERVICE} in the namespace {self.tunnel}"
        return f"{self.url} ({self.origin})"


@dataclass(frozen=True)
class Credentials:
    """What is sent along, and the variable that it came from; `path` is a file with a token."""

    origin: str | None = None
    token: str | None = None
    cookie: str | None = None
    path: str | None = None

    def __repr__(self) -> str:  # what is secret is in no log
        return f"Credentials(origin={self.origin!r})"


def find_endpoint(
    environment: Environment, given: str | None = None, environ: Mapping[str, str] = os.environ
) -> Endpoint:
    """Return where the API is.

    Args:
        environment: names it, or the namespace in which it is installed.
        given: the address of the command line.
        environ: the environment variables.

    Raises:
        ConfigError: the environment is this machine, or what was given is no address.
    """
    if environment.kind == "local":
        raise ConfigError(
            "The environment local is this machine, which has no Kubeflow Pipelines. Name a cluster's with "
            "-e, such as kind; `modelyard run` runs here."
        )
    named = {
        "--endpoint": given,
        VARIABLE: environ.get(VARIABLE),
        "environment.kfp.endpoint": environment.kfp.endpoint,
    }
    for origin, url in named.items():
        if url:
            return Endpoint(_checked(url, origin), origin)
    namespace = environment.kfp.namespace
    host = f"http://{SERVICE}.{namespace}.svc:{PORT}"
    inside = "KUBERNETES_SERVICE_HOST" in environ
    return Endpoint(host, "environment.kfp.namespace", None if inside else namespace)


def find_credentials(environ: Mapping[str, str] = os.environ) -> Credentials:
    """Return what is sent along with each request."""
    if token := environ.get(TOKEN):
        return Credentials(TOKEN, token=token)
    if cookie := environ.get(COOKIE):
        return Credentials(COOKIE, cookie=cookie)
    path = environ.get(MOUNTED, WHERE_MOUNTED)
    if MOUNTED in environ or Path(path).is_file():
        return Credentials(MOUNTED, path=path)
    return Credentials()


def _checked(url: str, origin: str) -> str:
    if not re.match(URL, url):
        # what may hold a password is not repeated
        shown = "an address with a user or a query" if "@" in url or "?" in url else repr(url)
        raise ConfigError(
            f"{origin} is {shown}, which is no address of an API. Write it as in http://127.0.0.1:8888 or "
            f"https://kubeflow.example.com/pipeline; a token belongs into {TOKEN}."
        )
    return url.rstrip("/")
