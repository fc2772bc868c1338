"""The permissions of the service accounts per namespace, from the API server."""

import itertools
import json

import pytest
from kubernetes import client
from kubernetes.config import new_client_from_config

pytestmark = pytest.mark.cluster

RUN, SERVE = "modelyard-runs:modelyard-run", "modelyard-serving:modelyard-serve"
RUNS, SERVING, STORAGE = "modelyard-runs", "modelyard-serving", "modelyard-storage"

MAY = {
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

MAY_NOT = {
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


def allowed(account: str, namespace: str, verb: str, resource: str) -> bool:
    """Return whether an account has a permission in a namespace, or in the cluster."""
    resource, _, group = resource.partition(".")
    resource, _, last = resource.partition("/")
    part = {"name" if resource in ("configmaps", "secrets") else "subresource": last}
    attributes = {"namespace": namespace, "verb": verb, "group": group, "resource": resource, **part}
    where, _ = account.split(":")
    groups = ["system:authenticated", "system:serviceaccounts", f"system:serviceaccounts:{where}"]
    spec = {"user": f"system:serviceaccount:{account}", "groups": groups, "resourceAttributes": attributes}
    api = client.AuthorizationV1Api(new_client_from_config())
    return api.create_subject_access_review({"spec": spec}).status.allowed


def review(table):
    return {
        (account, namespace, what): allowed(account, namespace, *what.split())
        for (account, namespace), several in table.items()
        for what in several
    }


def test_accounts_have_exactly_the_permissions_they_need():
    assert [request for request, is_allowed in review(MAY).items() if not is_allowed] == []
    assert [request for request, is_allowed in review(MAY_NOT).items() if is_allowed] == []


@pytest.mark.parametrize("namespace", [RUNS, SERVING])
def test_roles_grant_no_other_permissions(kubectl, namespace):
    """Argo's resources are checked below."""
    permitted = set(MAY[RUN, namespace])
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
def _as_a_server(kubectl, tmp_path, monkeypatch):
    """Set KUBECONFIG to the account of the servers, which has no permissions."""
    config = json.loads(kubectl("config", "view", "--raw", "--minify", "--flatten", "-o", "json"))
    token = kubectl("create", "token", "modelyard-serve", "-n", SERVING, "--duration=10m").strip()
    config["users"][0]["user"] = {"token": token}
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))


@pytest.mark.usefixtures("_as_a_server")
@pytest.mark.parametrize(
    ("command", "what", "rule"),
    [
        (("run",), f"list pods in the namespace {RUNS}", 'resources: ["pods"], verbs: ["list"]'),
        (
            ("rollout", "status", "digits"),
            f"get deployments.apps in the namespace {SERVING}",
            'resources: ["deployments"], verbs: ["get"]',
        ),
    ],
)
def test_error_has_the_missing_rule(modelyard, command, what, rule):
    ended = modelyard(*command, "-e", "kind", "--output", "json")
    assert ended.code == 9
    message = (ended.json.get("error") or ended.json["failure"])["message"]  # of a command, or of a run
    assert f"The service account {SERVE.replace(':', '/')} may not {what}." in message
    assert rule in message


def test_argo_executor_may_report_results_only():
    may = {"create workflowtaskresults", "patch workflowtaskresults", "get workflows"}
    may_not = {"delete workflows", "create workflows"}
    permitted = {name for name in may | may_not if allowed(RUN, RUNS, *f"{name}.argoproj.io".split())}
    assert permitted == may
