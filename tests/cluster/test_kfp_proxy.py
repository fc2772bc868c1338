"""Kubeflow Pipelines without a URL: requests go through the Kubernetes API server, as with kfp.Client.

A pod responds like the API server of Kubeflow Pipelines and returns as many bytes as it receives.
"""

from uuid import uuid4

import pytest
import yaml

from modelyard.components.errors import BackendError
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.environments.load import load_environment
from modelyard.pipelines.runners.kfp.client import connect

pytestmark = pytest.mark.cluster

SERVER = """
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        size = int(self.headers.get("content-length") or 0)
        self.rfile.read(size)
        health, version = {"multi_user": False}, {"pipeline_version_id": str(size), "description": "x" * size}
        body = json.dumps(health if "healthz" in self.path else version).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    do_POST = do_GET

ThreadingHTTPServer(("", 8888), Handler).serve_forever()
"""


@pytest.fixture(scope="module")
def namespace_with_kfp(kubectl, images) -> str:
    """A namespace with a Service and a pod with the names of Kubeflow Pipelines."""
    namespace = f"kfp-{uuid4().hex[:8]}"
    metadata = {"name": "ml-pipeline", "labels": {"app": "ml-pipeline"}}
    container = {
        "name": "api",
        "image": images["fingerprint"],
        "command": ["python3", "-c", SERVER],
        "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8888}, "periodSeconds": 1},
    }
    service = {"selector": {"app": "ml-pipeline"}, "ports": [{"name": "http", "port": 8888}]}
    objects = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": {"containers": [container]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
    ]
    kubectl("create", "namespace", namespace)
    kubectl("apply", "-n", namespace, "-f", "-", text=yaml.safe_dump_all(objects))
    yield namespace
    kubectl("delete", "namespace", namespace, "--wait=false")


def environment(namespace: str) -> Environment:
    return load_environment("kind", [f"environment.kfp.namespace={namespace}"], {})


def test_large_requests_and_responses_go_through_the_kubernetes_api_server(
    namespace_with_kfp, kubectl, tmp_path
):
    kubectl("wait", "-n", namespace_with_kfp, "--for=condition=Ready", "pod/ml-pipeline", "--timeout=120s")
    backend = connect(environment(namespace_with_kfp))
    assert backend.namespace == namespace_with_kfp
    package = tmp_path / "package.yaml"
    package.write_bytes(b"x" * 3_000_000)
    version = backend.uploads.upload_pipeline_version(str(package), name="large", pipelineid="1")
    assert int(version.pipeline_version_id) > 3_000_000
    assert len(version.description) > 3_000_000
    kubectl("delete", "-n", namespace_with_kfp, "pod/ml-pipeline", "--grace-period=0", "--force")
    with pytest.raises(BackendError, match=r"\(503\): no endpoints available"):
        connect(environment(namespace_with_kfp))


def test_missing_service_is_named():
    with pytest.raises(BackendError, match="Service ml-pipeline in the namespace missing"):
        connect(environment("missing"))
