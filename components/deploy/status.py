"""The status of a model on its cluster: what the pointer names, what serves, what keeps pods from running."""

from modelyard.components.artifacts import Record
from modelyard.components.deploy import objects
from modelyard.components.deploy.heartbeat import is_abandoned, last_heartbeat
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.readiness import pods_refused
from modelyard.components.deploy.serving_platform import ModelDeployment
from modelyard.components.kubernetes import Json
from modelyard.components.kubernetes.pod_problem import find_problem, is_ready


class Servers(Record):
    """A Deployment: what it serves, and how many of its pods are ready."""

    version: int
    image: str
    desired: int
    ready: int


class Status(Record):
    """A model on a cluster.

    `canary` is whether the Service selects the candidate too, `abandoned` whether the candidate's rollout
    was killed, `last` the last entry of the history: a promotion, a rollback, or a version not promoted.
    """

    model: str
    namespace: str
    champion: int | None
    stable: Servers | None
    candidate: Servers | None
    canary: bool
    abandoned: bool
    problems: tuple[str, ...]
    last: str | None


def status(model: ModelDeployment) -> Status:
    """Look at a model once.

    Raises:
        ClusterError: the cluster does not answer, or does not allow it.
        StoreError: the store does not answer.
    """
    name = model.name
    champion, history = model.models.champion(name), model.models.history(name)
    last = history[-1] if history else None
    service = model.service()
    selector = service["spec"].get("selector") if service else None
    stable, candidate = model.deployment("stable"), model.deployment("candidate")
    serves = _servers(model, "stable", stable)
    problems = [*_problems(model, "stable", stable), *_problems(model, "candidate", candidate)]
    if champion and (serves is None or serves.version != champion.version):
        what = f"version {serves.version}" if serves else "nothing"
        problems.append(
            f"The champion is version {champion.version} and stable serves {what}. `modelyard deploy "
            f"{name} {champion.version} -e ENV` brings it there, as every deploy does."
        )
    if champion is None and serves:
        problems.append(
            f"Stable serves version {serves.version}, and {name} has no champion in {model.models.url}. "
            f"`modelyard deploy {name} {serves.version} -e ENV` makes it that, if this is its store."
        )
    if candidate and is_abandoned(candidate):
        at = last_heartbeat(candidate)
        since = f", since {at:%Y-%m-%d %H:%M} UTC" if at else ""
        problems.append(
            f"The candidate, version {objects.version(candidate)}, is abandoned{since}: its deploy was "
            f"killed. The next deploy takes its place; `modelyard rollout abort {name} -e ENV` takes it away."
        )
    return Status(
        model=name,
        namespace=model.cluster.namespace,
        champion=champion.version if champion else None,
        stable=serves,
        candidate=_servers(model, "candidate", candidate),
        canary=bool(candidate and selector and objects.TRACK not in selector),
        abandoned=bool(candidate and is_abandoned(candidate)),
        problems=tuple(problems),
        last=f"{last.at}, version {last.version}, by {last.by}: {last.reason}" if last else None,
    )


def _servers(model: ModelDeployment, track: Track, deployment: Json | None) -> Servers | None:
    if deployment is None:
        return None
    return Servers(
        version=objects.version(deployment),
        image=objects.image(deployment),
        desired=deployment["spec"].get("replicas", 1),
        ready=len(model.ready_pods(track, objects.version(deployment))),
    )


def _problems(model: ModelDeployment, track: Track, deployment: Json | None) -> list[str]:
    if deployment is None:
        return []
    pods = [pod for pod in model.pods(track) if not is_ready(pod)]  # a problem of a ready pod is over
    found = [find_problem(pod, model.cluster.events(pod), model.cluster.nodes) for pod in pods]
    return [problem.message for problem in (pods_refused(deployment), *found) if problem]
