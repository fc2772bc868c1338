"""The overlays built by kustomize; `make test-cluster` also applies them to a real API server."""

import ipaddress
import shutil
import subprocess
from functools import cache
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from modelyard.components.deploy.platforms.objects import pod_template
from modelyard.components.deploy.settings import Rollout, Target
from modelyard.pipelines.environments.load import load_environment

MANIFESTS = Path(__file__).parents[3] / "manifests"
OVERLAYS = ("kind", "gke", "gke-node-pools")

TARGET = Target(platform="deployment", image="serve:1")
METADATA_SERVER = ipaddress.ip_address("169.254.169.254")

pytestmark = pytest.mark.skipif(
    shutil.which("kubectl") is None, reason="NOT RUN: kubectl, which builds the overlays, is not installed"
)


@cache
def build(overlay: str) -> list[dict]:
    command = ["kubectl", "kustomize", str(MANIFESTS / "overlays" / overlay)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""  # kustomize warns of deprecated fields
    return list(yaml.safe_load_all(result.stdout))


def find_object(objects: list[dict], kind: str, name: str) -> dict:
    (manifest,) = [item for item in objects if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return manifest


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_namespace_enforces_restricted_pods_and_network_policies(overlay):
    objects = build(overlay)
    namespaces = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Namespace"}
    assert {"modelyard-runs", "modelyard-serving"} <= set(namespaces)
    isolated = {
        item["metadata"]["namespace"]
        for item in objects
        if item["kind"] == "NetworkPolicy" and set(item["spec"]["policyTypes"]) == {"Ingress", "Egress"}
    }
    for name, namespace in namespaces.items():
        assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
        assert name in isolated


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_role_has_a_wildcard_or_cluster_access_except_to_list_nodes(overlay):
    objects = build(overlay)
    for item in objects:
        if item["kind"] == "Role":
            assert "*" not in str(item["rules"])
    (role,) = [item for item in objects if item["kind"] == "ClusterRole"]
    assert role["rules"] == [{"apiGroups": [""], "resources": ["nodes"], "verbs": ["list"]}]
    (binding,) = [item for item in objects if item["kind"] == "ClusterRoleBinding"]
    account = {"kind": "ServiceAccount", "name": "modelyard-run", "namespace": "modelyard-runs"}
    assert binding["subjects"] == [account]


def allows_metadata_server(policy: dict, port: int) -> bool:
    """Return whether a policy allows traffic to the metadata server of a cloud on a port."""
    for rule in policy["spec"].get("egress", []):
        if port not in [item["port"] for item in rule.get("ports", [{"port": port}])]:
            continue
        for peer in rule.get("to", [{"ipBlock": {"cidr": "0.0.0.0/0"}}]):
            block = peer.get("ipBlock", {"cidr": "255.255.255.255/32"})
            exceptions = [METADATA_SERVER in ipaddress.ip_network(item) for item in block.get("except", [])]
            if METADATA_SERVER in ipaddress.ip_network(block["cidr"]) and not any(exceptions):
                return True
    return False


@pytest.mark.parametrize(("overlay", "allowed"), [("kind", False), ("gke", True), ("gke-node-pools", True)])
def test_pods_reach_the_metadata_server_only_on_gke(overlay, allowed):
    objects = build(overlay)
    for name in ("steps", "servers"):
        assert allows_metadata_server(find_object(objects, "NetworkPolicy", name), 80) is allowed


def test_the_disruption_budget_selects_the_servers_of_every_model():
    (labels,) = (
        item["spec"]["selector"]["matchLabels"]
        for item in build("gke")
        if item["kind"] == "PodDisruptionBudget"
    )
    pod = pod_template(
        "digits", 1, "d", image="serve:1", target=TARGET, rollout=Rollout(), store="{}", serving={}
    )
    assert labels.items() <= pod["metadata"]["labels"].items()
    assert "app.kubernetes.io/name" not in labels


def test_on_gke_the_service_accounts_are_those_of_the_project():
    project = yaml.safe_load((MANIFESTS / "overlays/gke/config-map.yaml").read_text())["data"]
    objects = build("gke")
    for name, key in (("modelyard-run", "run_account"), ("modelyard-serve", "serve_account")):
        annotations = find_object(objects, "ServiceAccount", name)["metadata"]["annotations"]
        assert annotations["iam.gke.io/gcp-service-account"] == project[key]
    root = find_object(objects, "ConfigMap", "kfp-launcher")["data"]["defaultPipelineRoot"]
    assert root == project["pipeline_root"]
    assert not [item for item in objects if item["metadata"]["name"] == "project"]


def test_the_node_pools_match_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keys = ["environment.store=gs://b/m", "environment.pipeline_root=gs://b/r"]
    train = load_environment("gke", keys, {}).resources("train")
    pool = find_object(build("gke-node-pools"), "ContainerNodePool", "modelyard-gpu")["spec"]["nodeConfig"]
    assert pool["guestAccelerator"][0]["type"] == train.accelerator.type
    assert pool["guestAccelerator"][0]["count"] == train.accelerator.count
    assert pool["spot"] is train.spot is True


def test_the_environment_kind_and_its_overlay_agree():
    environment, objects = load_environment("kind", environ={}), build("kind")
    gcs, digits = find_object(objects, "Service", "gcs"), find_object(objects, "Service", "digits")
    inside = f"http://gcs.{gcs['metadata']['namespace']}:{gcs['spec']['ports'][0]['port']}"
    assert environment.storage_endpoint == inside
    assert environment.storage_endpoint_outside.endswith(f":{gcs['spec']['ports'][0]['nodePort']}")
    assert environment.serving.urls["digits"].endswith(f":{digits['spec']['ports'][0]['nodePort']}")
    for section in (environment.runs, environment.serving):
        account = find_object(objects, "ServiceAccount", section.service_account)
        assert account["metadata"]["namespace"] == section.namespace


def test_the_service_account_of_a_run_has_the_same_role_in_kubeflow():
    kubeflow, kind = build("kubeflow"), build("kind")
    roles = [find_object(objects, "Role", "modelyard-run") for objects in (kubeflow, kind)]
    assert roles[0]["rules"] == roles[1]["rules"]
    bindings = {
        (item["kind"], item["roleRef"]["name"]): item for item in kubeflow if item["kind"].endswith("Binding")
    }
    assert set(bindings) == {
        (item["kind"], item["roleRef"]["name"]) for item in kind if item["kind"].endswith("Binding")
    }
    for item in bindings.values():
        assert [subject["namespace"] for subject in item["subjects"]] == ["kubeflow"]
    names = [{(item["kind"], item["metadata"]["name"]) for item in objects} for objects in (kubeflow, kind)]
    shared = {(object_kind, "modelyard-run") for object_kind in ("ServiceAccount", "Role", "RoleBinding")}
    assert names[0] & names[1] == shared, "the overlays share cluster objects"


def test_third_party_manifests_are_pinned_to_the_version_of_the_client():
    release = version("kfp")
    for path in (MANIFESTS / "third-party").rglob("kustomization.yaml"):
        (resource,) = yaml.safe_load(path.read_text())["resources"]
        assert resource.endswith(f"?ref={release}")
