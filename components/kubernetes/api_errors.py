"""What the API server refuses, in plain words: permission, quota, Pod Security, and the rest."""

import re

FORBIDDEN = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group '
    r'"(?P<group>[^"]*)"(?: in the namespace "(?P<namespace>[^"]+)")?'
)
OTHERS = {
    r"error looking up service account (?P<namespace>[^/\s]+)/(?P<name>[^:\s]+): .* not found": (
        "There is no service account {name} in the namespace {namespace}, under which the pod would run. "
        "Apply modelyard's manifests for it, or correct service_account in environment.runs, or in "
        "environment.serving if it is a server's."
    ),
    r"(?:exceeded|failed) quota: (?P<name>[^,:]+?)\s*[,:] (?P<facts>.*\S)": (
        "The quota {name} of the namespace allows no pod: {facts}. Ask for less, free some, or raise it."
    ),
    r'violates PodSecurity "(?P<level>[^:"]+)[^"]*": (?P<facts>.*\S)': (
        "Pod Security of the namespace ({level}) refuses the pod: {facts}. Correct the pod, or what changes "
        "it on its way."
    ),
}


def explain_refusal(said: str) -> str:
    """Return what the API server's words mean.

    Args:
        said: the message of a status or of a condition `ReplicaFailure`.
    """
    if found := FORBIDDEN.search(said):
        return _forbidden(found)
    for pattern, explanation in OTHERS.items():
        if found := re.search(pattern, said):
            return explanation.format(**found.groupdict())
    return f"The cluster refuses: {said.strip().rstrip('.')}."


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
