"""Explanations of requests that the API server refuses."""

import pytest

from modelyard.components.kubernetes.api_errors import explain_refusal

RUN = "system:serviceaccount:modelyard-runs:modelyard-run"


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        (
            f'deployments.apps "m-stable" is forbidden: User "{RUN}" cannot patch resource "deployments" in '
            'API group "apps" in the namespace "modelyard-serving"',
            [
                "The service account modelyard-runs/modelyard-run may not patch deployments.apps",
                "in the namespace modelyard-serving. Add the rule",
                "to a Role that is bound to it",
                '{apiGroups: ["apps"], resources: ["deployments"], verbs: ["patch"]}',
            ],
        ),
        (
            'nodes is forbidden: User "ann" cannot list resource "nodes" in API group "" at the cluster '
            "scope",
            ["The user ann may not list nodes in the cluster.", "ClusterRole", 'apiGroups: [""]'],
        ),
        (
            "pods is forbidden: error looking up service account serving/gone: serviceaccount not found",
            ["There is no service account gone in the namespace serving"],
        ),
        ("the server is on fire", ["The cluster refuses the request: the server is on fire."]),
    ],
)
def test_refusals_are_explained(message, parts):
    for part in parts:
        assert part in explain_refusal(message)
