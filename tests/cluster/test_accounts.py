"""What the accounts may and may not do, per namespace, asked of the real API server."""

import itertools
import json
import subprocess

import pytest

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
    ],
    (RUN, RUNS): [
        "get pods",
        "get pods/log",
        "list events",
        "get configmap/kfp-launcher",
    ],
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
        "get configmap/other",
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


def may(account: str, namespace: str, what: str) -> str:
    """Return `yes` or `no`."""
    verb, resource = what.split()
    where = ["-n", namespace] if namespace else ["-A"]
    kind, slash, sub = resource.partition("/")
    if slash and kind != "configmap":
        resource, where = kind, [*where, "--subresource", sub]
    command = ["kubectl", "auth", "can-i", verb, resource, "--as", f"system:serviceaccount:{account}", *where]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()[0]


def answers(table):
    return {
        (account, namespace, what): may(account, namespace, what)
        for (account, namespace), several in table.items()
        for what in several
    }


def test_an_account_may_do_what_it_needs():
    found = answers(MAY)
    assert not [asked for asked, answer in found.items() if answer != "yes"]


def test_an_account_may_do_nothing_else():
    found = answers(MAY_NOT)
    assert not [asked for asked, answer in found.items() if answer != "no"]


@pytest.mark.parametrize("namespace", [RUNS, SERVING])
def test_a_role_grants_no_more_than_is_asked_above(kubectl, namespace):
    """Argo's resources are asked for below."""
    asked = set(MAY[RUN, namespace])
    for role in json.loads(kubectl("get", "roles", "-n", namespace, "-o", "json"))["items"]:
        for rule in role["rules"]:
            (group,) = rule["apiGroups"]
            for resource, verb in itertools.product(rule["resources"], rule["verbs"]):
                named = [f"configmap/{name}" for name in rule.get("resourceNames", ())]
                whole = f"{resource}.{group}" if group else resource
                assert group == "argoproj.io" or {f"{verb} {one}" for one in named or [whole]} <= asked


@pytest.fixture
def _as_a_server(kubectl, tmp_path, monkeypatch):
    """Let KUBECONFIG name the account of the servers, which may do nothing."""
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
            f"get services in the namespace {SERVING}",
            'resources: ["services"], verbs: ["get"]',
        ),
    ],
)
def test_who_may_not_do_it_is_told_which_rule_is_missing(modelyard, command, what, rule):
    ended = modelyard(*command, "-e", "kind", "--output", "json")
    assert ended.code == 9
    said = (ended.json.get("error") or ended.json["failure"])["message"]  # of a command, or of a run
    assert f"The service account {SERVE.replace(':', '/')} may not {what}." in said
    assert rule in said


@pytest.mark.parametrize(
    ("verb", "resource", "allowed"),
    [
        ("create", "workflowtaskresults", True),
        ("patch", "workflowtaskresults", True),
        ("get", "workflows", True),
        ("delete", "workflows", False),
        ("create", "workflows", False),
    ],
)
def test_an_executor_of_argo_may_report_and_not_start(kubectl, verb, resource, allowed):
    """Asked as a review, since kubectl knows only resources that the cluster has."""
    asked = {"namespace": RUNS, "group": "argoproj.io", "verb": verb, "resource": resource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{RUN}", "resourceAttributes": asked},
    }
    answer = json.loads(kubectl("create", "-o", "json", "-f", "-", text=json.dumps(review)))
    assert answer["status"]["allowed"] is allowed
