"""Explanations of requests that the API server refuses: permissions, quotas, Pod Security."""

import re

FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
EXPLANATIONS = {
    r"error looking up service account (?P<namespace>[^/\s]+)/(?P<name>[^:\s]+): .* not found": (
        "There is no service account {name} in the namespace {namespace} for the pod. Apply modelyard's "
        "manifests, or correct environment.runs.service_account (steps) or "
        "environment.serving.service_account (servers)."
    ),
    r"(?:exceeded|failed) quota: (?P<name>[^,:]+?)\s*[,:] (?P<facts>.*\S)": (
        "The quota {name} of the namespace refuses the pod: {facts}. Request less, delete pods, or raise the "
        "quota."
    ),
    r'violates PodSecurity "(?P<level>[^:"]+)[^"]*": (?P<facts>.*\S)': (
        "Pod Security of the namespace ({level}) refuses the pod: {facts}. Correct the pod, or the admission "
        "webhook that changes it."
    ),
}


def explain_refusal(message: str) -> str:
    """Return an explanation of the message of a status or of a condition `ReplicaFailure`, with a remedy."""
    if match := FORBIDDEN.search(message):
        return _explain_forbidden(match)
    for pattern, explanation in EXPLANATIONS.items():
        if match := re.search(pattern, message):
            return explanation.format(**match.groupdict())
    return f"The cluster refuses the request: {message.strip().rstrip('.')}."


def _explain_forbidden(match: re.Match[str]) -> str:
    user = match["user"].removeprefix("system:serviceaccount:").replace(":", "/")
    kind = "service account" if match["user"].startswith("system:serviceaccount:") else "user"
    resource = f"{match['resource']}.{match['group']}" if match["group"] else match["resource"]
    scope = f"in the namespace {match['namespace']}" if match["namespace"] else "in the cluster"
    role = "Role" if match["namespace"] else "ClusterRole"
    rule = f'apiGroups: ["{match["group"]}"], resources: ["{match["resource"]}"], verbs: ["{match["verb"]}"]'
    return (
        f"The {kind} {user} may not {match['verb']} {resource} {scope}. Add the rule {{{rule}}} to a {role} "
        f"that is bound to it, or apply modelyard's roles again (manifests/)."
    )
