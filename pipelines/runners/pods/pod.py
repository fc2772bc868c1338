"""The pod of a step, made of what the compiled pipeline says, as KFP's own driver would make it."""

from pathlib import Path
from typing import Any

import yaml

from modelyard.pipelines.environments.environment import Environment

Json = dict[str, Any]
TEMPLATE = Path(__file__).parent / "step.yaml"
NEEDS_KUBERNETES = "deploy"


def pod(compiled: tuple[Json, Json], step: str, environment: Environment) -> Json:
    """Return the pod of a step, without a name, a command and artifacts.

    Args:
        compiled: the two documents of the compiled pipeline: its specification, and its platform's.
        step: the step's name.
        environment: where it runs.
    """
    pipeline, platform = compiled
    container = pipeline["deploymentSpec"]["executors"][f"exec-{step}"]["container"]
    settings = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"][f"exec-{step}"]
    made: Json = yaml.safe_load(TEMPLATE.read_text(encoding="utf-8"))
    made["metadata"]["labels"].update(settings["podMetadata"]["labels"])
    spec = made["spec"]
    spec["serviceAccountName"] = environment.runs.service_account
    spec["automountServiceAccountToken"] = step == NEEDS_KUBERNETES
    spec["activeDeadlineSeconds"] = int(settings.get("activeDeadlineSeconds", environment.active_deadline))
    spec["securityContext"].update(_user(settings["securityContext"]))
    spec["nodeSelector"] = settings.get("nodeSelector", {}).get("labels", {})
    spec["tolerations"] = settings.get("tolerations", [])
    for mount in settings["emptyDirMounts"]:
        volume = next(one for one in spec["volumes"] if one["name"] == mount["volumeName"])
        volume["emptyDir"] = {"sizeLimit": mount["sizeLimit"]} if "sizeLimit" in mount else {}
    (fetch, main), (put,) = spec["initContainers"], spec["containers"]
    fetch["image"] = put["image"] = environment.image("fingerprint")  # which has the client of the store
    main.update(image=container["image"], env=container.get("env", []), resources=_resources(container))
    return made


def _user(settings: Json) -> Json:
    """Return the security context of the pod; the volumes belong to its group."""
    user, group = int(settings["runAsUser"]), int(settings["runAsGroup"])
    return {"runAsUser": user, "runAsGroup": group, "fsGroup": group, "runAsNonRoot": True}


def _resources(container: Json) -> Json:
    said = container.get("resources", {})
    accelerator = said.get("accelerator", {})
    requests = {"cpu": said.get("resourceCpuRequest"), "memory": said.get("resourceMemoryRequest")}
    limits = {"memory": said.get("resourceMemoryLimit")}
    if accelerator:
        limits[accelerator["resourceType"]] = accelerator["resourceCount"]
    kept = {"requests": requests, "limits": limits}
    return {kind: {name: size for name, size in sizes.items() if size} for kind, sizes in kept.items()}
