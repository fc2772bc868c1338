"""The objects of a model on a cluster, made from templates/*.yaml: two Deployments and a Service.

The Service selects stable alone, except during canary analysis: then the candidate as well.
"""

import json
import math
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import yaml

from modelyard.components.deploy.settings import PORT, Rollout, Target
from modelyard.components.kubernetes import Json

Track = Literal["stable", "candidate"]

LINGER = 5.0  # seconds; every proxy of a cluster knows by then that a server ends
NAME, PART, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/part-of", "app.kubernetes.io/component"
TRACK, VERSION, DIGEST = "modelyard.dev/track", "modelyard.dev/version", "modelyard.dev/digest"
TOKEN, HEARTBEAT = "modelyard.dev/rollout", "modelyard.dev/heartbeat"
TEMPLATE = "modelyard.dev/template"  # of a pod, what it was made from


def deployment(
    name: str,
    track: Track,
    version: int,
    digest: str,
    *,
    target: Target,
    rollout: Rollout,
    store: str,
    serving: Json,
    token: str | None = None,
) -> Json:
    """Return the Deployment of a track that serves a version, without its number of replicas.

    `digest` is of the version's manifest, `token` of the rollout that a candidate belongs to; `store` and
    `serving` are sections of the configuration, the former as JSON.
    """
    serving = {**serving, "host": "0.0.0.0", "port": PORT}  # noqa: S104 - the pod's own address
    serving["linger"] = max(LINGER, serving.get("linger", 0.0))
    args = ["--name", name, "--version", str(version), "--digest", digest]
    args += ["--store", store, "--serving", json.dumps(serving, sort_keys=True)]
    made = _filled(
        "deployment",
        deployment=f"{name}-{track}",
        name=name,
        track=track,
        namespace=target.namespace,
        labels={**_labels(name), COMPONENT: "serve", TRACK: track, VERSION: str(version)},
        annotations={DIGEST: digest, **({TOKEN: token} if token else {})},
        digest=digest,
        service_account=target.service_account,
        grace=math.ceil(serving["linger"] + serving.get("drain_timeout", 20.0)) + 10,
        image=target.image,
        args=args,
        cpu=target.resources.cpu,
        memory=target.resources.memory,
        startup_failures=math.ceil(rollout.ready_timeout) + 30,
    )
    template = made["spec"]["template"]
    written = sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    template["metadata"]["annotations"][TEMPLATE] = written[:16]
    return made


def service(name: str, namespace: str, canary: bool, token: str = "") -> Json:
    """Return the Service, which selects the candidate too when `canary`; `token` is the rollout's."""
    selector = {**_labels(name), **({} if canary else {TRACK: "stable"})}
    annotations = {TOKEN: token} if token else {}
    return _filled("service", name=name, namespace=namespace, selector=selector, annotations=annotations)


def heartbeat(candidate: Json) -> Json:
    """Return the present time as a candidate's heartbeat, to be applied to that very Deployment."""
    same = {key: candidate["metadata"][key] for key in ("name", "namespace", "uid")}
    at = {HEARTBEAT: datetime.now(UTC).isoformat(timespec="seconds")}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {**same, "annotations": at}}


def selector(name: str, track: Track, version: int | None = None) -> str:
    """Return what selects the pods of a track, or those of one version."""
    labels = {**_labels(name), TRACK: track, **({VERSION: str(version)} if version else {})}
    return ",".join(f"{key}={value}" for key, value in labels.items())


def version(found: Json) -> int:
    """Return the version that a Deployment or pod of ours serves; 0 when it does not say."""
    label = found["metadata"].get("labels", {}).get(VERSION, "")
    return int(label) if label.isdecimal() else 0


def made_from(deployment: Json, pod: Json) -> bool:
    """Say whether a pod was made from a Deployment's present template, whatever a cluster added to it."""
    return annotation(deployment["spec"]["template"], TEMPLATE) == annotation(pod, TEMPLATE)


def image(deployment: Json) -> str:
    """Return the image that a Deployment's servers run."""
    return str(_server(deployment)["image"])


def serving(deployment: Json) -> Json:
    """Return the section `serving` of a Deployment's servers."""
    args = _server(deployment)["args"]
    return dict(json.loads(args[args.index("--serving") + 1]))


def annotation(found: Json, key: str) -> str:
    """Return an annotation of an object; empty when it has none."""
    return str(found["metadata"].get("annotations", {}).get(key, ""))


def _server(deployment: Json) -> Json:
    return dict(deployment["spec"]["template"]["spec"]["containers"][0])


def _labels(name: str) -> dict[str, str]:
    return {NAME: name, PART: "modelyard"}


def _filled(template: str, **values: Any) -> Json:
    return dict(_fill(_template(template), values))


@cache
def _template(name: str) -> Json:
    return dict(yaml.safe_load((Path(__file__).parent / "templates" / f"{name}.yaml").read_text()))


def _fill(node: Any, values: Json) -> Any:
    """Return a copy of a template's node in which each `${…}` is its value."""
    if isinstance(node, dict):
        return {key: _fill(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill(value, values) for value in node]
    return values[node[2:-1]] if isinstance(node, str) and node.startswith("${") else node
