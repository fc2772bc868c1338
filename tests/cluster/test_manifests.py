"""The overlays, applied to an API server."""

import pytest
import yaml

from tests.cluster.conftest import ROOT, run_command

pytestmark = pytest.mark.cluster

OVERLAYS = ("kind", "gke", "gke-node-pools")
CONFIG_CONNECTOR = "cnrm.cloud.google.com"  # only clusters of Google have its CRDs
NAMESPACES = ("modelyard-runs", "modelyard-serving", "modelyard-storage")


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_api_server_accepts_every_object_of_an_overlay(kubectl, overlay):
    objects = list(yaml.safe_load_all(kubectl("kustomize", ROOT / "manifests/overlays" / overlay)))
    accepted = [item for item in objects if CONFIG_CONNECTOR not in item["apiVersion"]]
    assert len(accepted) > 10
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=yaml.safe_dump_all(accepted))


def test_api_server_accepts_the_objects_for_kubeflow_pipelines(kubectl):
    """In an existing namespace, because not every cluster has Kubeflow Pipelines."""
    manifest = kubectl("kustomize", ROOT / "manifests/overlays/kubeflow")
    in_runs_namespace = manifest.replace("namespace: kubeflow", "namespace: modelyard-runs")
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=in_runs_namespace)


@pytest.fixture(scope="module")
def _config_connector(kubectl):
    """The CRDs of Config Connector; existing CRDs are not changed."""
    missing = []
    for path in sorted((ROOT / "tests/cluster/config_connector").glob("*.yaml")):
        name = yaml.safe_load(path.read_text())["metadata"]["name"]
        if not kubectl("get", "crd", name, "--ignore-not-found"):
            kubectl("create", "-f", path)
            missing.append(f"crd/{name}")
    if missing:
        kubectl("wait", "--for=condition=Established", "--timeout=60s", *missing)
    yield
    if missing:
        kubectl("delete", *missing)


@pytest.mark.usefixtures("_config_connector")
def test_config_connector_objects_are_valid(kubectl):
    objects = yaml.safe_load_all(kubectl("kustomize", ROOT / "manifests/overlays/gke-node-pools"))
    resources = [item for item in objects if CONFIG_CONNECTOR in item["apiVersion"]]
    assert {item["kind"] for item in resources} == {"ContainerNodePool", "ArtifactRegistryRepository"}
    command = ("apply", "--dry-run=server", "--validate=strict", "-f", "-")
    kubectl(*command, text=yaml.safe_dump_all(resources))
    pool = next(item for item in resources if item["metadata"]["name"] == "modelyard-gpu")
    pool["spec"]["nodeConfig"]["guestAccelerators"] = pool["spec"]["nodeConfig"].pop("guestAccelerator")
    with pytest.raises(AssertionError, match=r'unknown field "spec.nodeConfig.guestAccelerators"'):
        kubectl(*command, text=yaml.safe_dump(pool))


@pytest.mark.parametrize("component", ["autoscaling", "disruption-budget"])
def test_api_server_accepts_the_component(kubectl, component):
    (path,) = [
        path
        for path in (ROOT / "manifests/components" / component).glob("*.yaml")
        if path.name != "kustomization.yaml"
    ]
    kubectl("apply", "--dry-run=server", "--validate=strict", "-f", path)


def test_repeated_apply_of_the_overlay_changes_nothing(kubectl):
    kubectl("apply", "-k", ROOT / "build/kind")
    lines = kubectl("apply", "-k", ROOT / "build/kind").splitlines()
    assert len(lines) > 10
    assert all(line.endswith(" unchanged") for line in lines), lines


def test_kind_up_changes_only_the_emulators_image_of_the_overlay(kubectl):
    kubectl("apply", "-k", ROOT / "build/kind")
    lines = kubectl("apply", "--dry-run=server", "-k", ROOT / "manifests/overlays/kind").splitlines()
    assert len(lines) > 10
    not_unchanged = [line for line in lines if " unchanged" not in line]
    assert not_unchanged == ["deployment.apps/gcs configured (server dry run)"]


@pytest.mark.parametrize("namespace", NAMESPACES)
def test_pod_that_runs_as_root_is_rejected(namespace):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "root", "namespace": namespace},
        "spec": {"containers": [{"name": "root", "image": "x", "securityContext": {"runAsUser": 0}}]},
    }
    result = run_command("kubectl", "apply", "--dry-run=server", "-f", "-", text=yaml.safe_dump(pod))
    assert result.code == 1
    assert 'violates PodSecurity "restricted' in result.err
