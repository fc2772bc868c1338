"""What a person has yet to do before a run can be started: each with how long it takes, and the command.

Only what the environment's settings tell: no cluster is asked. What they cannot tell says "unless …".
"""

import re
from collections.abc import Iterator
from typing import get_args

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConfigError
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.accelerators import ANY_GPU, Accelerator, known
from modelyard.pipelines.environments.environment import Environment, Step
from modelyard.pipelines.planning.offers import Offer

EXAMPLE = re.compile(
    r"[A-Z]{4,}|\bmy-project\b|\bexample\.(com|org)\b"
)  # as shipped files and docs name them
POOLS = (("nvidia-l4", 1), ("tpu-v6e-slice", 4))  # of manifests/overlays/gke-node-pools
IMAGES = {"gpu": "train-cuda", "tpu": "train-tpu"}
MINUTES = "minutes"


class Effort(Record):
    """One thing to do; `takes` is in words, "unknown" where nobody here can tell."""

    what: str
    takes: str
    how: str


def effort(config: Config, environment: Environment, name: str, chosen: Offer | None) -> tuple[Effort, ...]:
    """Return the list for an environment, in the order in which it is done; empty when nothing is left.

    Args:
        config: the configuration.
        environment: where it would run.
        name: the environment's name.
        chosen: the accelerator that the plan is for; None when it is none.
    """
    mine = environment.resources("train").accelerator
    device = _device(mine, chosen)
    if environment.kind == "local":
        return tuple(_elsewhere(device, mine))
    file = name if "/" in name or name.endswith((".yaml", ".yml")) else f"environments/{name}.yaml"
    on_gke = device and device.type != ANY_GPU and not environment.storage_endpoint
    pool = device if on_gke else None
    return (
        *_asked(device, mine, file),
        *_names(environment, file),
        _cluster(environment, pool),
        *_images(environment, device),
        *(_quota(environment, pool) if pool else _node(device)),
        *_pipelines(environment),
        *_code(config, device, environment),
    )


def _device(mine: Accelerator | None, chosen: Offer | None) -> Accelerator | None:
    """Return the accelerator that the plan is for, as a step asks for it."""
    if chosen is None or (mine and (mine.type, mine.count) == (chosen.accelerator, chosen.count)):
        return mine
    slices = known()[chosen.accelerator].topologies.items()
    topology = next((topology for topology, chips in slices if chips == chosen.count), None)
    return Accelerator(type=chosen.accelerator, count=chosen.count, topology=topology)


def _elsewhere(device: Accelerator | None, mine: Accelerator | None) -> Iterator[Effort]:
    if device and device != mine:
        yield Effort(
            what=f"an environment with {_said(device)}: this one is this machine",
            takes="minutes, where there is a cluster",
            how="-e gke, or a file of your own in ./environments; docs/environments.md",
        )


def _asked(device: Accelerator | None, mine: Accelerator | None, file: str) -> Iterator[Effort]:
    if device and device != mine:
        backend = ", and keras_backend: jax" if device.kind == "tpu" else ""
        yield Effort(
            what=f"train asks for {_said(mine)}, and this plan is for {_said(device)}",
            takes=MINUTES,
            how=f"steps.train.accelerator in {file}{backend}",
        )


def _names(environment: Environment, file: str) -> Iterator[Effort]:
    said = {
        "registry": environment.registry,
        "store": environment.store,
        "pipeline_root": environment.pipeline_root,
        "kfp.endpoint": environment.kfp.endpoint,
    }
    if found := [key for key, value in said.items() if value and EXAMPLE.search(value)]:
        yield Effort(
            what=f"{', '.join(found)}: still as in an example",
            takes=MINUTES,
            how=f"your own in {file}; gcloud storage buckets create",
        )


def _cluster(environment: Environment, pool: Accelerator | None) -> Effort:
    """Ask for what the manifests bring, node pools on GKE included."""
    if environment.storage_endpoint:
        return Effort(
            what="a cluster with modelyard on it, unless it is there",
            takes=MINUTES,
            how="make kind-up, on a cluster of yours with CLUSTER=current REGISTRY=host/path",
        )
    named = f", nodes with {_said(pool)}" if pool else ""
    overlay = "gke-node-pools" if pool else "gke"
    return Effort(
        what=f"namespaces, accounts{named}, unless there",
        takes=MINUTES,
        how=f"kubectl apply -k manifests/overlays/{overlay} ({', '.join(_edits(environment, pool))} first)",
    )


def _edits(environment: Environment, pool: Accelerator | None) -> Iterator[str]:
    """Yield what is to be changed about the manifests before they are applied."""
    yield "gke/config-map.yaml"
    if pool and (pool.type, pool.count) not in POOLS:
        yield f"machine type in components/{pool.kind}-node-pool"
    if pool and not environment.resources("train").spot:
        yield "no components/spot"


def _images(environment: Environment, device: Accelerator | None) -> Iterator[Effort]:
    """Ask for what no registry has under its digest, as far as the settings tell."""
    train = IMAGES[device.kind] if device else "train"
    needed = [train if name == "train" else name for name in (*get_args(Step), "serve")]
    missing = [name for name in needed if not _pushed(environment, name)]
    special = train if train in missing and device else None
    targets = [
        *(["images"] if any(name != special for name in missing) else []),
        *(["images-accelerators"] if special else []),
    ]
    if missing:
        by_hand = f"make {' '.join(targets)} REGISTRY={environment.registry or 'host/path'}"
        yield Effort(
            what="images in a registry, by their digest: "
            + ("none yet" if missing == needed else f"not {', '.join(missing)}"),
            takes=f"{MINUTES}, 30 GB of disk" if special else MINUTES,
            how=by_hand if special or not environment.storage_endpoint else "make kind-up builds them, too",
        )


def _pushed(environment: Environment, name: str) -> bool:
    try:
        return "@sha256:" in environment.image(name)
    except ConfigError:
        return False


def _node(device: Accelerator | None) -> Iterator[Effort]:
    if device:
        yield Effort(
            what=f"a node that offers {device.resource}, unless there is one",
            takes="unknown: only you know the hardware",
            how=f"a device plugin on it; accelerator.type: {ANY_GPU} and node_selector in steps.train",
        )


def _quota(environment: Environment, pool: Accelerator) -> Iterator[Effort]:
    spot = " on Spot" if environment.resources("train").spot else ""
    yield Effort(
        what=f"quota for {_said(pool)}{spot}, unless it is granted",
        takes="unknown: hours to days",
        how="the project's page Quotas; only the provider decides",
    )


def _pipelines(environment: Environment) -> Iterator[Effort]:
    if not environment.kfp.endpoint and not environment.storage_endpoint:
        yield Effort(
            what="Kubeflow Pipelines for submit, not for run, unless there",
            takes=MINUTES,
            how="environment.kfp.endpoint, or KUBECONFIG; docs/kfp.md",
        )


def _code(config: Config, device: Accelerator | None, environment: Environment) -> Iterator[Effort]:
    """Ask for what training there changes about a model of the user's own."""
    jax = environment.keras_backend == "jax" or (device and device.kind == "tpu")
    if jax and config.model.build:
        yield Effort(
            what=f"{config.model.build} has to use keras.ops alone: Keras trains with JAX there",
            takes="unknown",
            how="keras.ops for TensorFlow's functions in model.code; docs/images.md",
        )


def _said(device: Accelerator | None) -> str:
    return f"{device.type} x{device.count}" if device else "no accelerator"
