"""Servers with a token and TLS: Secrets, probes and the API server's proxy."""

from dataclasses import replace

import pytest

from modelyard.components.errors import ConfigError, DeployError
from modelyard.components.server import HttpServer, predict_one
from tests.access import make_certificate, write_private
from tests.cluster.rollout.conftest import DARK

pytestmark = pytest.mark.cluster


def test_servers_need_their_secrets_and_serve_with_a_token_and_tls(workspace, kubectl, tmp_path):
    name, namespace = workspace.name, workspace.platform.cluster.namespace
    token, tls = f"{name}-token", f"{name}-tls"
    platform = workspace.platform_with(token_secret=token, tls_secret=tls, start_timeout=3600.0)
    version = workspace.publish()
    with pytest.raises(ConfigError, match=f"kubectl create secret generic {token}"):
        workspace.deploy(version, platform)
    files = write_private(tmp_path / "tokens", "first\nsecond\n")
    create = "create", "secret", "-n", namespace
    kubectl(*create, "generic", token, f"--from-file=token={files}")
    with pytest.raises(DeployError, match=f'secret "{tls}" not found'):
        workspace.deploy(version, platform)  # long before start_timeout, beyond which this test times out
    certificate, private_key = make_certificate()
    cert = write_private(tmp_path / "cert.pem", certificate)
    key = write_private(tmp_path / "key.pem", private_key)
    kubectl(*create, "tls", tls, f"--cert={cert}", f"--key={key}")
    assert workspace.deploy(version, platform).decision == "promote"

    server = HttpServer("https://{}:{}".format(*workspace.address), token="second", verify=False)  # noqa: S106
    assert predict_one(server, name, DARK) == [1, 0]
    assert replace(server, token="third").request("GET", "/metrics", None, {})[0] == 401  # noqa: S106
    assert platform.ready_pods("stable"), "probes need no token"
    second = workspace.publish()
    assert workspace.deploy(second, platform).decision == "promote", "the metrics of the canary were read"
    pods = kubectl("get", "pods,deployments", "-n", namespace, "-o", "yaml")
    assert "first" not in pods


@pytest.mark.soak
def test_token_is_replaced_in_running_pods(workspace, kubectl):
    name, namespace = workspace.name, workspace.platform.cluster.namespace
    kubectl("create", "secret", "generic", name, "-n", namespace, "--from-literal=token=first")
    workspace.deploy(workspace.publish(), workspace.platform_with(token_secret=name))
    server = HttpServer("http://{}:{}".format(*workspace.address), token="first")  # noqa: S106
    changed = replace(server, token="second")  # noqa: S106
    patch = '{"stringData": {"token": "first\\nsecond"}}'
    kubectl("patch", "secret", name, "-n", namespace, "-p", patch)
    while changed.request("GET", "/metrics", None, {})[0] == 401:
        assert predict_one(server, name, DARK) == [1, 0]
    assert predict_one(changed, name, DARK) == [1, 0]
