"""The permissions of the service accounts per namespace, from the API server."""

import itertools
import json

import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

pytestmark = pytest.mark.cluster

RUN, SERVE = "modelyard-runs:modelyard-run", "modelyard-serving:modelyard-serve"
RUNS, SERVING, STORAGE = "modelyard-runs", "modelyard-serving", "modelyard-storage"

ALLOWED = {
    (RUN, SERVING): [
        "get deployments.apps",
        "create deployments.apps",
        "patch deployments.apps",
        "delete deployments.apps",
        "get services",
        "create services",
        "patch services",
        "list pods",
        "list events",
        "get secrets/modelyard-token",
    ],
    (RUN, RUNS): ["get pods", "get pods/log", "list events", "get configmaps/kfp-launcher"],
    (RUN, ""): ["list nodes"],
}

DENIED = {
    (RUN, SERVING): [
        "list deployments.apps",
        "watch deployments.apps",
        "list services",
        "watch services",
        "get pods",
        "watch pods",
        "get events",
        "get pods/log",
        "create pods",
        "delete pods",
        "create pods/exec",
        "get pods/proxy",
        "get secrets",
        "get configmaps",
        "delete services",
        "create serviceaccounts/token",
        "create roles.rbac.authorization.k8s.io",
        "patch limitranges",
    ],
    (RUN, RUNS): [
        "list pods",
        "watch pods",
        "patch pods",
        "get events",
        "create pods",
        "delete pods",
        "create pods/exec",
        "get secrets",
        "get configmaps/other",
        "create deployments.apps",
        "create serviceaccounts/token",
    ],
    (RUN, STORAGE): ["get pods", "get secrets", "patch deployments.apps"],
    (RUN, "kube-system"): ["get pods", "get secrets", "patch deployments.apps"],
    (RUN, ""): [
        "get nodes",
        "watch nodes",
        "patch nodes",
        "get nodes/proxy",
        "list namespaces",
        "list pods",
        "create clusterroles.rbac.authorization.k8s.io",
    ],
    (SERVE, SERVING): ["get pods", "get secrets", "get configmaps", "get services", "patch deployments.apps"],
    (SERVE, RUNS): ["get pods", "get secrets", "get configmaps"],
    (SERVE, ""): ["list nodes", "list pods"],
    (f"{RUNS}:default", RUNS): ["get pods", "get secrets"],
    (f"{SERVING}:default", SERVING): ["get pods", "get secrets"],
}


def is_allowed(account: str, namespace: str, verb: str, resource: str) -> bool:
    """Return whether an account has a permission in a namespace, or in the cluster."""
    resource, _, group = resource.partition(".")
    resource, _, name = resource.partition("/")
    detail = {"name" if resource in ("configmaps", "secrets") else "subresource": name}
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, **detail}
    user, all_accounts = f"system:serviceaccount:{account}", "system:serviceaccounts"
    groups = ["system:authenticated", all_accounts, f"{all_accounts}:{account.partition(':')[0]}"]
    spec = {"user": user, "groups": groups, "resourceAttributes": attributes}
    api = client.AuthorizationV1Api(new_client_from_config())
    return api.create_subject_access_review({"spec": spec}).status.allowed


def review(permissions):
    """Return whether the API server allows each of the permissions."""
    return {
        (account, namespace, permission): is_allowed(account, namespace, *permission.split())
        for (account, namespace), listed in permissions.items()
        for permission in listed
    }


def test_accounts_have_exactly_the_permissions_they_need():
    assert [permission for permission, allowed in review(ALLOWED).items() if not allowed] == []
    assert [permission for permission, allowed in review(DENIED).items() if allowed] == []


@pytest.mark.parametrize("namespace", [RUNS, SERVING])
def test_roles_grant_no_other_permissions(kubectl, namespace):
    """Except for Argo's resources, which another test checks."""
    permitted = set(ALLOWED[RUN, namespace])
    for role in json.loads(kubectl("get", "roles", "-n", namespace, "-o", "json"))["items"]:
        for rule in role["rules"]:
            (group,) = rule["apiGroups"]
            for resource, verb in itertools.product(rule["resources"], rule["verbs"]):
                named = [f"{resource}/{name}" for name in rule.get("resourceNames", ())]
                resource_name = f"{resource}.{group}" if group else resource
                assert (
                    group == "argoproj.io"
                    or {f"{verb} {name}" for name in named or [resource_name]} <= permitted
                )


@pytest.fixture
def _kubeconfig_of_servers(kubectl, tmp_path, monkeypatch):
    """Set KUBECONFIG to the account of the servers, which has no permissions."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    token = kubectl("create", "token", "modelyard-serve", "-n", SERVING, "--duration=10m").strip()
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


@pytest.mark.usefixtures("_kubeconfig_of_servers")
@pytest.mark.parametrize(
    ("command", "denied", "rule"),
    [
        (("run",), f"list pods in the namespace {RUNS}", 'resources: ["pods"], verbs: ["list"]'),
        (
            ("rollout", "status", "digits"),
            f"get deployments.apps in the namespace {SERVING}",
            'resources: ["deployments"], verbs: ["get"]',
        ),
    ],
)
def test_error_without_permission_has_the_missing_rule(modelyard, command, denied, rule):
    result = modelyard(*command, "-e", "kind", "--output", "json")
    assert result.code == 9
    message = (result.json.get("error") or result.json["failure"])["message"]
    assert f"The service account {SERVE.replace(':', '/')} may not {denied}." in message
    assert rule in message


def test_argo_executor_may_report_results_only():
    needed = {"create workflowtaskresults", "patch workflowtaskresults", "get workflows"}
    denied = {"delete workflows", "create workflows"}
    allowed = {name for name in needed | denied if is_allowed(RUN, RUNS, *f"{name}.argoproj.io".split())}
    assert allowed == needed
