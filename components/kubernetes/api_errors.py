"""What the API server refuses, in plain words: permission, quota, Pod Security, and the rest."""

import re

from modelyard.components.kubernetes.pod_problem import PodProblem

FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
QUOTA = re.compile(r"(?:exceeded|failed) quota: (?P<name>[^,:]+)[,:] (?P<facts>.*)")
ACCOUNT = re.compile(
    r"error looking up service account (?P<namespace>[^/\s]+)/(?P<name>[^:\s]+): .* not found"
)
POD_SECURITY = re.compile(r'violates PodSecurity "(?P<level>[^:"]+)[^"]*": (?P<facts>.*)')


def explain_refusal(said: str) -> PodProblem:
    """Return what the API server's words mean.

    Args:
        said: the message of a status or of a condition `ReplicaFailure`.
    """
    if found := FORBIDDEN.search(said):
        return PodProblem(reason="Forbidden", message=_forbidden(found), patience=0.0)
    if found := ACCOUNT.search(said):
        message = (
            f"There is no service account {found['name']} in the namespace {found['namespace']}, under which "
            "the pod would run. Apply modelyard's manifests for it, or correct service_account in "
            "environment.runs, or in environment.serving if it is a server's."
        )
        return PodProblem(reason="ServiceAccount", message=message, patience=0.0)
    if found := QUOTA.search(said):
        message = (
            f"The quota {found['name'].strip()} of the namespace allows no pod: {found['facts'].strip()}. "
            "Ask for less, free some, or raise it."
        )
        return PodProblem(reason="Quota", message=message, patience=0.0)
    if found := POD_SECURITY.search(said):
        message = (
            f"Pod Security of the namespace ({found['level']}) refuses the pod: {found['facts'].strip()}. "
            "Correct the pod, or what changes it on its way."
        )
        return PodProblem(reason="PodSecurity", message=message, patience=0.0)
    return PodProblem(
        reason="Refused", message=f"The cluster refuses: {said.strip().rstrip('.')}.", patience=0.0
    )


def _forbidden(found: re.Match[str]) -> str:
    user = found["user"].removeprefix("system:serviceaccount:").replace(":", "/")
    kind = "service account" if found["user"].startswith("system:serviceaccount:") else "user"
    resource = f"{found['resource']}.{found['group']}" if found["group"] else found["resource"]
    where = f"in the namespace {found['namespace']}" if found["namespace"] else "in the whole cluster"
    role = "Role" if found["namespace"] else "ClusterRole"
    rule = f'apiGroups: ["{found["group"]}"], resources: ["{found["resource"]}"], verbs: ["{found["verb"]}"]'
    return (
        f"The {kind} {user} may not {found['verb']} {resource} {where}. Add a rule to a {role} that is bound "
        f"to it ({rule}), or apply modelyard's own roles again (manifests/)."
    )
