"""What can go wrong, in plain words: how likely it is, or "unknown", and the setting that lowers it."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from modelyard.components.artifacts import Record
from modelyard.components.kubernetes.quantities import number
from modelyard.components.train.settings import Training
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.place import LIBRARIES, Place
from modelyard.pipelines.planning.words import seconds, size

if TYPE_CHECKING:
    from modelyard.pipelines.planning.plan import Plan

FEW_ROWS = 1_000
INPUT_BOUND = 0.2
COPIES = 4  # of the weights in the host's memory during the export: three files, and what they are made of


class Risk(Record):
    """One thing; `probability` is in words, "unknown" where nobody measured it."""

    what: str
    probability: str
    lowers: str


def risks(
    plan: "Plan", environment: Environment, training: Training, data: Dataset, where: Place
) -> tuple[Risk, ...]:
    """Return the list for a plan, what is measured before what is unknown.

    Args:
        plan: without its risks.
        environment: where it would run.
        training: how it is trained.
        data: the rows.
        where: the room that training has.
    """
    memory, time = plan.memory, plan.duration
    parameters, dtype, fits = plan.parameters, plan.dtype, plan.fit
    found = []
    if fits != "fits":
        found.append(
            Risk(
                what="the device runs out of memory",
                probability="certain" if fits == "does not fit" else "unknown: between the two bounds",
                lowers=f"training.batch_size, now {training.batch_size}: {size(memory.each)} an example",
            )
        )
    found += _room(plan, data, where)
    if time and time.input_share and time.input_share > INPUT_BOUND:
        found.append(
            Risk(
                what=f"reading takes {time.input_share:.0%} of a step: a faster device would wait for it",
                probability="measured",
                lowers="more cores for train (environment.steps.train.cpu), or a larger model",
            )
        )
    rows = data.rows.get("train", 0)
    if rows < FEW_ROWS or parameters > 100 * rows:
        found.append(
            Risk(
                what=f"{rows:,} rows are few for {parameters:,} parameters: it learns them by heart",
                probability="unknown; --learning-curve measures what more rows would bring",
                lowers="more data, model.dropout, training.early_stopping",
            )
        )
    found.append(
        Risk(
            what="the loss is no number any more, and the run stops",
            probability="unknown" if dtype == "float32" else f"unknown, higher in {dtype}",
            lowers="training.optimizer_settings: a lower learning_rate, clipnorm: 1.0",
        )
    )
    found.append(_cut_off(plan, training))
    if plan.offers:
        found.append(
            Risk(
                what="prices are others than those of the file",
                probability="unknown; Spot prices change daily, and one doubled between two readings",
                lowers="--price with today's price, or --hardware with a file of your own",
            )
        )
    if environment.kind != "local":
        found += _on_a_cluster(plan, environment)
    return tuple(found)


def _room(plan: "Plan", data: Dataset, where: Place) -> Iterator[Risk]:
    """Yield what does not fit beside a device's memory: the export into the pod's, the run onto the disk."""
    export = LIBRARIES + COPIES * plan.memory.weights
    if where.host is not None and export > where.host:
        yield Risk(
            what=f"the export takes about {size(export)} of memory beside the accelerator, and the pod has "
            f"{size(where.host)}",
            probability=f"unknown: it is assumed to hold the weights {COPIES} times",
            lowers="environment.steps.train.memory",
        )
    written = plan.storage.model if data.features else plan.storage.run
    if where.disk is not None and written > where.disk:
        yield Risk(
            what=f"the disk is full: the run writes {size(written)}, and {size(where.disk)} are free",
            probability="certain, unless somebody makes room",
            lowers="`modelyard gc`, or MODELYARD_HOME on another disk",
        )


def _cut_off(plan: "Plan", training: Training) -> Risk:
    """Return what is lost when training is cut off: what came after the last checkpoint."""
    every, train = training.checkpoint_every, plan.train.value
    epoch = train / training.epochs if train else 0.0
    if every and training.epochs > 1 and (not train or every < train):
        lost = seconds(max(every, epoch))
        what = f"the training is cut off and goes on from its last checkpoint: up to {lost} are lost"
    else:
        short = "it is over before the first checkpoint" if every else "there are no checkpoints"
        what = f"the training is cut off and begins again from its start: {short}"
    return Risk(what=what, probability="unknown", lowers=f"training.checkpoint_every, now {every:g} s")


def _on_a_cluster(plan: "Plan", environment: Environment) -> list[Risk]:
    train = environment.resources("train")
    found = []
    if train.ephemeral_storage and plan.storage.checkpoint > number(train.ephemeral_storage):
        found.append(
            Risk(
                what=f"a checkpoint takes {size(plan.storage.checkpoint)} in the pod's /tmp, which may have "
                f"{train.ephemeral_storage}: the pod is evicted",
                probability="certain, once training.checkpoint_every is over",
                lowers="environment.steps.train.ephemeral_storage; training.checkpoint_every: 0",
            )
        )
    found.append(
        Risk(
            what="the pods wait for a node, in a queue or for quota",
            probability="unknown: not estimable from outside; a pod waits "
            f"{environment.start_timeout} s at most",
            lowers="environment.start_timeout; another zone or accelerator; a reservation",
        )
    )
    if train.spot:
        found.append(
            Risk(
                what="the Spot node is taken away more often than the step is started again",
                probability="unknown for any zone; the table shows 1, 6 and 24 hours between two",
                lowers=f"environment.steps.train.spot: false, or more retries than {train.retries}",
            )
        )
    if train.accelerator and not environment.accelerator_optional:
        found.append(
            Risk(
                what="the node's driver and the image's CUDA do not match: the step ends at its start",
                probability="unknown",
                lowers="the node pool's driver version; the image train-cuda",
            )
        )
    return found
