"""Make a plan: memory, time, storage and cost of a run, before it starts.

plan = make(config, environment, "local", Request(probe=True), home)
plan.fit, plan.train, plan.money, plan.problems
"""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from modelyard.components.artifacts import Record
from modelyard.components.errors import TooLargeError
from modelyard.components.kubernetes.quantities import parse_quantity
from modelyard.components.machine import check_keras
from modelyard.components.store.records import now
from modelyard.components.train.measurement import (
    Cost,
    LearningCurve,
    ProbeRequest,
    ProbeResult,
    TrainingWorkload,
)
from modelyard.pipelines.compile.uploads import prepare_uploads
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.accelerators import CATALOG
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning import measuring
from modelyard.pipelines.planning.dataset import Dataset, describe_dataset
from modelyard.pipelines.planning.hardware import Device, estimate_cost, find_device, load_catalog, options
from modelyard.pipelines.planning.plan import (
    Fit,
    Memory,
    Plan,
    Storage,
    TrainTime,
    estimate_memory,
    estimate_storage,
    estimate_train_time,
    exceeded,
    load_plan,
    plan_key,
    save_plan,
)
from modelyard.pipelines.planning.render import size

Notify = Callable[[str], None]
PROBE_SECONDS = 20.0
BUSY = 1.5  # runnable processes per core; on an idle machine the probe itself is about one


class Request(Record):
    """The options of `modelyard plan`.

    `seconds` is how long a probe times steps. `fetch` downloads data that is not on this machine; `rows` and
    `outputs` describe it instead. `prices` is a file like accelerators.yaml, `price` USD per hour of the
    machine, `budget` USD.
    """

    probe: bool = False
    seconds: float = PROBE_SECONDS
    learning_curve: bool = False
    fetch: bool = False
    rows: int | None = None
    outputs: int | None = None
    prices: Path | None = None
    price: float | None = None
    budget: float | None = None


def make_plan(
    config: Config,
    environment: Environment,
    name: str,
    request: Request,
    home: Path,
    on_progress: Notify = lambda _: None,
    warn: Notify = lambda _: None,
) -> Plan:
    """Return the plan of a configuration, and keep it for `submit` and for the report of the run after it.

    Args:
        config: the configuration.
        environment: where it would run.
        name: the environment's name.
        request: what the user asks.
        home: where runs and plans are kept.
        on_progress: called with a description of the current activity.
        warn: called with a warning.

    Raises:
        ModelyardError: the data or the model is invalid, or too little is known about them.
    """
    catalog, training = load_catalog(request.prices or CATALOG), config.training
    if request.probe and environment.on_cluster:
        measuring.check(environment)
    if request.learning_curve or (request.probe and not environment.on_cluster):
        check_keras()
    on_progress("preparing the data")
    data = describe_dataset(
        config, request.rows, request.outputs, _needs_download(config, environment, request)
    )
    workload = _workload(config, data)
    on_progress("counting what a training step takes")
    cost, _ = measuring.run_in_process("cost", workload, Cost, KERAS_BACKEND="tensorflow")
    memory, device = estimate_memory(cost), find_device(environment, catalog, home)
    fit = memory.fit(device.memory) if device.memory is not None else None
    key = plan_key(prepare_uploads(config, environment).config, environment)
    measured = _Measured.earlier(load_plan(home, key), data)
    if request.probe and fit != "does not fit":
        measured = _probe(workload, request, config, environment, data, on_progress)
    if measured.train or measured.too_large:  # a probe that ran there has seen whether it fits
        fit = "does not fit" if measured.too_large else "fits"
    curve = None
    if request.learning_curve and not measured.too_large:
        on_progress("training on growing parts of the data, which takes about twice as long as one training")
        curve, _ = measuring.run_in_process("learning_curve", workload, LearningCurve)
    probed, accelerator = measured.probed, device.accelerator
    if accelerator and probed and not probed.device.startswith(accelerator.kind):
        accelerator = None  # accelerator_optional, on a node without it
    storage = estimate_storage(sum(data.rows.values()), data.row_bytes, cost, probed, training)
    spot = environment.resources("train").spot
    plan = Plan(
        model=config.name,
        environment=name,
        created=now(),
        parameters=cost.parameters,
        rows=data.rows,
        targets=data.targets,
        device=device.name,
        capacity=device.memory,
        memory=memory,
        fit=fit,
        flops_per_step=cost.flops,
        steps=training.epochs * math.ceil(data.rows["train"] / training.batch_size),
        uncounted=cost.uncounted,
        storage=storage,
        probed=probed,
        probed_at=measured.at,
        too_large=measured.too_large,
        train=measured.train,
        money=estimate_cost(measured.train, accelerator, spot, catalog, request.price),
        options=options(catalog, memory, environment.keras_backend),
        prices_read=catalog.read,
        learning_curve=curve,
        warnings=tuple(_warnings(config, environment, device, memory, fit, probed)),
        problems=tuple(_problems(config, environment, device, memory, storage, fit, measured.too_large)),
    )
    try:
        save_plan(home, key, plan)
    except OSError as error:
        warn(f"The plan cannot be kept, so submit does not know it: {error}.")
    return plan.model_copy(update={"exceeded": exceeded(plan, environment, training, request.budget)})


class _Measured(NamedTuple):
    """The result and time of a probe; `too_large` is its message if it ran out of memory."""

    probed: ProbeResult | None = None
    train: TrainTime | None = None
    at: str | None = None
    too_large: str | None = None

    @classmethod
    def earlier(cls, plan: Plan | None, data: Dataset) -> "_Measured":
        """Return the probe of the last plan of the same configuration, if the examples are the same."""
        if plan and plan.rows == data.rows:
            return cls(plan.probed, plan.train, plan.probed_at, plan.too_large)
        return cls()


def _probe(
    workload: TrainingWorkload,
    request: Request,
    config: Config,
    environment: Environment,
    data: Dataset,
    on_progress: Notify,
) -> _Measured:
    """Probe in the environment of training; running out of memory is a result, not an error."""
    probe_request, pod = ProbeRequest(workload=workload, seconds=request.seconds), environment.on_cluster
    on_progress(f"training for {request.seconds:g} s{' in a pod' if pod else ''}")
    try:
        if pod:
            probed, wall = measuring.probe_in_pod(probe_request, config, environment, on_progress)
        else:
            probed, wall = measuring.run_in_process("probe", probe_request, ProbeResult)
    except TooLargeError as error:
        return _Measured(at=now(), too_large=str(error).rstrip("."))
    return _Measured(probed, estimate_train_time(probed, wall, config.training, data.rows), now())


def _workload(config: Config, data: Dataset) -> TrainingWorkload:
    code = config.code()
    return TrainingWorkload(
        example_schema=data.examples,
        normalization=data.normalization,
        model=config.model,
        training=config.training,
        code=code.to_json() if code else "",
        code_sha256=config.code_sha256(),
        training_examples=data.rows["train"],
        validation_examples=data.rows.get("validation", 0),
        features=data.features,
    )


def _needs_download(config: Config, environment: Environment, request: Request) -> bool:
    """Tell whether data is downloaded: a probe in a pod needs its shape alone, and CIFAR-10's is known."""
    needed = not environment.on_cluster or config.data.kind != "cifar10"
    return request.fetch or request.learning_curve or (request.probe and needed)


def _problems(
    config: Config,
    environment: Environment,
    device: Device,
    memory: Memory,
    storage: Storage,
    fit: Fit | None,
    too_large: str | None,
) -> list[str]:
    """Return the reasons why the run cannot succeed, with remedies."""
    found, train = [], environment.resources("train")
    if too_large:
        found.append(too_large)
    elif fit == "does not fit":
        found.append(
            f"weights, gradients and optimizer take {size(memory.fixed)}, and {device.name} has "
            f"{size(device.memory or 0)}: take a smaller model or a larger device (one model is not split "
            "over several)"
        )
    if device.disk is not None and storage.run > device.disk:
        found.append(
            f"the run writes {size(storage.run)}, and {size(device.disk)} of the disk are free: use "
            "`modelyard gc`, or set MODELYARD_HOME to a folder on another disk"
        )
    disk = train.ephemeral_storage if config.training.checkpoint_every else None
    if disk and storage.checkpoint > parse_quantity(disk):
        found.append(
            f"a checkpoint takes {size(storage.checkpoint)}, more than environment.steps.train."
            f"ephemeral_storage, {disk}: raise it, or set training.checkpoint_every to 0"
        )
    return found


def _warnings(
    config: Config,
    environment: Environment,
    device: Device,
    memory: Memory,
    fit: Fit | None,
    probed: ProbeResult | None,
) -> list[str]:
    """Return warnings with remedies."""
    found, train, accelerator = [], environment.resources("train"), device.accelerator
    if fit == "uncertain":
        batch = memory.largest_batch(device.memory or 0)
        works = f"a batch of {batch:,} would fit" if batch else "not even one example is sure to fit"
        found.append(f"only --probe can tell whether it fits: {works}")
    if accelerator and probed and not probed.device.startswith(accelerator.kind):
        found.append(f"the probe ran on {probed.device}, as the node has no {accelerator.type}")
    if probed and probed.load > BUSY:
        found.append(
            f"the machine was busy while it was probed ({probed.load:.1f} processes a core), so the times "
            "are uncertain"
        )
    if accelerator and accelerator.count > 1:
        found.append(f"train uses one of {accelerator.count} {accelerator.type}: ask for one")
    if train.spot and not train.retries:
        found.append("a Spot node may be taken away: set environment.steps.train.retries")
    if environment.keras_backend == "jax" and config.model.build:
        found.append(f"{config.model.build} must use keras.ops only: Keras trains with JAX")
    return found
