"""The Kubernetes objects of a model, from templates/*.yaml: two Deployments and a Service."""

import copy
import json
import math
from contextlib import suppress
from datetime import UTC, datetime
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import yaml

from modelyard.components.deploy.settings import Rollout, Target, check_server_access
from modelyard.components.kubernetes import Json
from modelyard.components.server import PORT

Track = Literal["stable", "candidate"]

SECRETS_FOLDER = "/etc/modelyard"
SERVER_GROUP_ID = 65532  # may read the mounted Secrets
MIN_LINGER = 5.0  # seconds in which the proxies of all nodes are updated after a server starts to terminate
NAME_LABEL, PART_OF_LABEL = "app.kubernetes.io/name", "app.kubernetes.io/part-of"
COMPONENT_LABEL = "app.kubernetes.io/component"
TRACK_LABEL, VERSION_LABEL = "modelyard.dev/track", "modelyard.dev/version"
DIGEST_ANNOTATION = "modelyard.dev/digest"
TOKEN_ANNOTATION, HEARTBEAT_ANNOTATION = "modelyard.dev/rollout", "modelyard.dev/heartbeat"
TEMPLATE_ANNOTATION = "modelyard.dev/template"  # hash of the template, without its track


def pod_template(
    name: str,
    version: int,
    digest: str,
    *,
    image: str,
    target: Target,
    rollout: Rollout,
    store: str,
    serving: Json,
) -> Json:
    """Return the pod template of a version, for either track.

    `digest` is the digest of the manifest. `store` is the section `store` as JSON, and `serving` the section
    `serving`.
    """
    check_server_access(serving, target)
    serving = {**serving, "host": "0.0.0.0", "port": PORT}  # noqa: S104 - all addresses of the pod
    volumes = _set_secret_paths(serving, target)
    serving["linger"] = max(MIN_LINGER, serving.get("linger", 0.0))
    args = ["--name", name, "--version", str(version), "--digest", digest]
    args += ["--store", store, "--serving", json.dumps(serving, sort_keys=True)]
    template = _render(
        "pod",
        labels=_server_labels(name, version),
        digest=digest,
        service_account=target.service_account,
        grace=math.ceil(serving["linger"] + serving.get("drain_timeout", 20.0)) + 10,
        image=image,
        args=args,
        cpu=target.resources.cpu,
        memory=target.resources.memory,
        startup_failures=math.ceil(rollout.ready_timeout) + 30,
    )
    pod, (container,) = template["spec"], template["spec"]["containers"]
    if volumes:
        pod["securityContext"]["fsGroup"] = SERVER_GROUP_ID
        pod["volumes"] += volumes
        names = [volume["name"] for volume in volumes]
        container["volumeMounts"] += [{"name": key, "mountPath": f"{SECRETS_FOLDER}/{key}"} for key in names]
    if target.tls_secret:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            container[probe]["httpGet"]["scheme"] = "HTTPS"
    content_hash = sha256(json.dumps(template, sort_keys=True).encode()).hexdigest()
    template["metadata"]["annotations"][TEMPLATE_ANNOTATION] = content_hash[:16]
    return template


def deployment(name: str, track: Track, namespace: str, template: Json, token: str = "") -> Json:
    """Return the Deployment of a track, without its number of replicas.

    `template` comes from `pod_template` or from a Deployment of either track. `token` is the token of the
    rollout.
    """
    template = copy.deepcopy(template)
    template["metadata"]["labels"] = {**template["metadata"]["labels"], TRACK_LABEL: track}
    annotations = {
        DIGEST_ANNOTATION: annotation(template, DIGEST_ANNOTATION),
        **({TOKEN_ANNOTATION: token} if token else {}),
    }
    return _render(
        "deployment",
        deployment=f"{name}-{track}",
        name=name,
        track=track,
        namespace=namespace,
        labels={**_server_labels(name, version(template)), TRACK_LABEL: track},
        annotations=annotations,
        template=template,
    )


def service(name: str, namespace: str, canary: bool, token: str = "") -> Json:
    """Return the Service, annotated with a rollout's token; with `canary`, it also selects the candidate."""
    selector = {**_labels(name), **({} if canary else {TRACK_LABEL: "stable"})}
    annotations = {TOKEN_ANNOTATION: token} if token else {}
    return _render("service", name=name, namespace=namespace, selector=selector, annotations=annotations)


def service_url(name: str, namespace: str, tls: bool = False) -> str:
    """Return the URL of a model's Service inside the cluster."""
    return f"{'https' if tls else 'http'}://{name}.{namespace}:{PORT}"


def uses_tls(pod: Json) -> bool:
    """Return whether a pod serves TLS."""
    return any(volume["name"] == "tls" for volume in pod["spec"].get("volumes", []))


def _set_secret_paths(serving: Json, target: Target) -> list[Json]:
    """Set the paths of the target's Secrets in a section `serving`; return the volumes of the Secrets."""
    volumes = []
    for name, secret, files in (
        ("token", target.token_secret, {"token_file": "token"}),
        ("tls", target.tls_secret, {"tls_cert": "tls.crt", "tls_key": "tls.key"}),
    ):
        for key, file in files.items():
            serving.pop(key, None)  # a path of another machine
            if secret:
                serving[key] = f"{SECRETS_FOLDER}/{name}/{file}"
        if secret:
            items = [{"key": file, "path": file} for file in files.values()]
            volumes.append(
                {"name": name, "secret": {"secretName": secret, "defaultMode": 0o440, "items": items}}
            )
    return volumes


def heartbeat(candidate: Json, at: datetime) -> Json:
    """Return the object that writes a heartbeat when it is applied, to the candidate with this uid."""
    identity = {key: candidate["metadata"][key] for key in ("name", "namespace", "uid")}
    annotations = {HEARTBEAT_ANNOTATION: at.isoformat(timespec="seconds")}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {**identity, "annotations": annotations},
    }


def last_heartbeat(candidate: Json) -> datetime | None:
    """Return the time of a candidate's last heartbeat, or else of its creation, in UTC; None if unknown."""
    creation_time = str(candidate["metadata"].get("creationTimestamp", ""))
    with suppress(ValueError):
        at = datetime.fromisoformat(annotation(candidate, HEARTBEAT_ANNOTATION) or creation_time)
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    return None


def selector(name: str, track: Track | None = None, version: int | None = None) -> str:
    """Return the label selector of a model's pods, of a track or of a version."""
    labels = {
        **_labels(name),
        **({TRACK_LABEL: track} if track else {}),
        **({VERSION_LABEL: str(version)} if version else {}),
    }
    return ",".join(f"{key}={value}" for key, value in labels.items())


def version(item: Json) -> int:
    """Return the version label of a Deployment or pod; 0 if there is none."""
    label = _label(item, VERSION_LABEL)
    return int(label) if label.isdecimal() else 0


def track(item: Json) -> str:
    """Return the track label of a Deployment or pod; empty if there is none."""
    return _label(item, TRACK_LABEL)


def token(item: Json) -> str:
    """Return the token of the rollout that a candidate or the Service belongs to; empty if there is none."""
    return annotation(item, TOKEN_ANNOTATION)


def matches_template(deployment: Json, pod: Json) -> bool:
    """Return whether a pod was created from a Deployment's current template."""
    return annotation(deployment["spec"]["template"], TEMPLATE_ANNOTATION) == annotation(
        pod, TEMPLATE_ANNOTATION
    )


def image(template: Json) -> str:
    """Return the server's image in a pod template."""
    return str(template["spec"]["containers"][0]["image"])


def annotation(item: Json, key: str) -> str:
    """Return an annotation of an object; empty if there is none."""
    return str((item["metadata"].get("annotations") or {}).get(key, ""))


def _label(item: Json, key: str) -> str:
    return str(item["metadata"].get("labels", {}).get(key, ""))


def _server_labels(name: str, version: int) -> dict[str, str]:
    return {**_labels(name), COMPONENT_LABEL: "serve", VERSION_LABEL: str(version)}


def _labels(name: str) -> dict[str, str]:
    return {NAME_LABEL: name, PART_OF_LABEL: "modelyard"}


def _render(name: str, /, **values: Any) -> Json:
    return dict(_substitute(_read_template(name), values))


@cache
def _read_template(name: str) -> Json:
    return dict(
        yaml.safe_load((Path(__file__).parent / "templates" / f"{name}.yaml").read_text(encoding="utf-8"))
    )


def _substitute(node: Any, values: Json) -> Any:
    """Return a copy of a YAML node in which each `${…}` is replaced by its value."""
    if isinstance(node, dict):
        return {key: _substitute(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_substitute(value, values) for value in node]
    return values[node[2:-1]] if isinstance(node, str) and node.startswith("${") else node
