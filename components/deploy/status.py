"""How a model fares on its cluster: what the pointer names, what serves, what keeps pods from it."""

from modelyard.components.artifacts import Record
from modelyard.components.deploy import objects, pulse
from modelyard.components.deploy.objects import Track
from modelyard.components.deploy.site import Place
from modelyard.components.kubernetes import pod_problem
from modelyard.components.kubernetes.deployments import refused
from modelyard.components.kubernetes.pod_problem import Json


class Servers(Record):
    """A Deployment: what it serves, and how many of its pods are ready."""

    version: int
    image: str
    wanted: int
    ready: int


class Status(Record):
    """A model on a cluster.

    `canary` says whether the Service leads to the candidate too, and `watched` whether a rollout watches the
    candidate, None when there is none; `troubles` are sentences; `last` is what the history says last, of a
    promotion, a rollback, or a version that was not promoted.
    """

    model: str
    namespace: str
    champion: int | None
    stable: Servers | None
    candidate: Servers | None
    canary: bool
    watched: bool | None
    troubles: tuple[str, ...]
    last: str | None


def status(site: Place) -> Status:
    """Look at a model once.

    Raises:
        ClusterError: the cluster does not answer, or does not allow it.
        StoreError: the store does not answer.
    """
    champion, history = site.models.champion(site.name), site.models.history(site.name)
    last = history[-1] if history else None
    service = site.service()
    selector = service["spec"].get("selector") if service else None
    stable, candidate = site.deployment("stable"), site.deployment("candidate")
    found = _servers(site, "stable", stable)
    troubles = [*_troubles(site, "stable", stable), *_troubles(site, "candidate", candidate)]
    if champion and (found is None or found.version != champion.version):
        serves = f"version {found.version}" if found else "nothing"
        troubles.append(
            f"The champion is version {champion.version} and stable serves {serves}. `modelyard deploy "
            f"{site.name} {champion.version} -e ENV` brings it there, as every deploy does."
        )
    if champion is None and found:
        troubles.append(
            f"Stable serves version {found.version}, and {site.name} has no champion in {site.models.url}. "
            f"`modelyard deploy {site.name} {found.version} -e ENV` makes it that, if this is its store."
        )
    if candidate and pulse.stopped(candidate):
        troubles.append(_abandoned(site, candidate))
    return Status(
        model=site.name,
        namespace=site.cluster.namespace,
        champion=champion.version if champion else None,
        stable=found,
        candidate=_servers(site, "candidate", candidate),
        canary=bool(candidate and selector and objects.TRACK not in selector),
        watched=not pulse.stopped(candidate) if candidate else None,
        troubles=tuple(troubles),
        last=f"{last.at}, version {last.version}, by {last.by}: {last.reason}" if last else None,
    )


def _abandoned(site: Place, candidate: Json) -> str:
    last = pulse.last(candidate)
    since = f", since {last:%Y-%m-%d %H:%M} UTC" if last else ""
    return (
        f"Nobody watches the candidate, version {objects.version(candidate)}{since}: its deploy was killed. "
        f"The next deploy takes its place; `modelyard rollout abort {site.name} -e ENV` takes it away."
    )


def _servers(site: Place, track: Track, deployment: Json | None) -> Servers | None:
    if deployment is None:
        return None
    return Servers(
        version=objects.version(deployment),
        image=objects.image(deployment),
        wanted=deployment["spec"].get("replicas", 1),
        ready=len(site.ready_pods(track, objects.version(deployment))),
    )


def _troubles(site: Place, track: Track, deployment: Json | None) -> list[str]:
    if deployment is None:
        return []
    refusal = refused(deployment)
    found = [refusal] if refusal else []
    for pod in site.pods(track):
        if pod_problem.is_ready(pod):
            continue  # a trouble that it had is over
        trouble = pod_problem.find_problem(pod, site.cluster.events(pod), site.cluster.nodes)
        found += [trouble] if trouble else []
    return [trouble.message for trouble in found]
