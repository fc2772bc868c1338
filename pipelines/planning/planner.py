"""Make a plan: memory, time, storage and cost of a run, before it starts.

plan = make_plan(config, environment, "local", PlanRequest(probe=True), home)
plan.fit, plan.train, plan.cost, plan.errors
"""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from modelyard.components.artifacts import Record
from modelyard.components.errors import ConfigError, TooLargeError
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
from modelyard.pipelines.planning.hardware import (
    Catalog,
    Device,
    estimate_cost,
    find_device,
    list_options,
    load_catalog,
)
from modelyard.pipelines.planning.plan import (
    Fit,
    Memory,
    Plan,
    TrainTime,
    compute_plan_key,
    estimate_memory,
    estimate_storage,
    estimate_train_time,
    find_exceeded_limits,
    load_plan,
    save_plan,
)
from modelyard.pipelines.planning.render import format_size

Notify = Callable[[str], None]
BUSY_LOAD = 1.5  # runnable processes per core; the probe alone is about one


class PlanRequest(Record):
    """The options of `modelyard plan`.

    `seconds` is the duration of the measured training. `fetch` downloads remote data; `examples` and
    `outputs` describe it instead. `prices` is a file like accelerators.yaml, `price` the USD per hour of the
    machine, `budget` the maximum cost in USD.
    """

    probe: bool = False
    seconds: float = 20.0
    learning_curve: bool = False
    fetch: bool = False
    examples: int | None = None
    outputs: int | None = None
    prices: Path | None = None
    price: float | None = None
    budget: float | None = None


def make_plan(
    config: Config,
    environment: Environment,
    name: str,
    request: PlanRequest,
    home: Path,
    log: Notify = lambda _: None,
    warn: Notify = lambda _: None,
) -> Plan:
    """Return the plan of a configuration, and save it for `submit` and for the report of the run.

    Args:
        config: the configuration.
        environment: where the run would execute.
        name: the environment's name.
        request: the options.
        home: the folder of runs and plans.
        log: receives progress messages.
        warn: receives warnings.

    Raises:
        ModelyardError: the data or the model is invalid, or too little is known about them.
    """
    if request.examples is not None and (request.fetch or request.learning_curve):
        option = "--fetch" if request.fetch else "--learning-curve"
        raise ConfigError(
            f"--examples {request.examples} cannot be combined with {option}, which downloads the data and "
            "counts its examples. Remove one of them."
        )
    catalog = load_catalog(request.prices or CATALOG)
    if request.probe and environment.on_cluster:
        measuring.check_cluster(environment)
    if request.learning_curve or (request.probe and not environment.on_cluster):
        check_keras()
    log("preparing the data")
    shape_is_known = environment.on_cluster and config.data.kind == "cifar10"  # enough for a probe in a pod
    fetch = request.fetch or request.learning_curve or (request.probe and not shape_is_known)
    data = describe_dataset(config, request.examples, request.outputs, fetch)
    workload = _create_workload(config, data)
    log("computing memory and operations of a training step")
    cost, _ = measuring.run_in_process("cost", workload, Cost, KERAS_BACKEND="tensorflow")
    device = find_device(environment, catalog, home)
    inputs = _Inputs(config, environment, request, catalog, data, cost, device)
    key = compute_plan_key(prepare_uploads(config, environment).config, environment)
    probe = _Probe.from_plan(load_plan(home, key), data)
    if request.probe and inputs.fit != "does not fit":
        probe = _run_probe(inputs, workload, log)
    curve = None
    if request.learning_curve and not probe.out_of_memory:
        log("training on increasing fractions of the data, which takes about twice as long as training")
        curve, _ = measuring.run_in_process("learning_curve", workload, LearningCurve)
    plan = _create_plan(name, inputs, probe, curve)
    try:
        save_plan(home, key, plan)
    except OSError as error:
        warn(f"The plan cannot be saved, so `modelyard submit` does not check it: {error}.")
    limits = find_exceeded_limits(plan, environment, config.training, request.budget)
    return plan.model_copy(update={"exceeded_limits": limits})


class _Inputs(NamedTuple):
    """The inputs of a plan, without measurements."""

    config: Config
    environment: Environment
    request: PlanRequest
    catalog: Catalog
    data: Dataset
    cost: Cost
    device: Device

    @property
    def memory(self) -> Memory:
        """The memory of a training step."""
        return estimate_memory(self.cost)

    @property
    def fit(self) -> Fit | None:
        """Whether a training step fits on the device; None if its memory is unknown."""
        return self.memory.fit(self.device.memory) if self.device.memory is not None else None


class _Probe(NamedTuple):
    """The result of a probe, the training time estimated from it, and the time of the probe.

    `out_of_memory` is the message if the probe ran out of memory.
    """

    result: ProbeResult | None = None
    train: TrainTime | None = None
    probed_at: str | None = None
    out_of_memory: str | None = None

    @classmethod
    def from_plan(cls, plan: Plan | None, data: Dataset) -> "_Probe":
        """Return the probe of the last plan of the configuration, if the numbers of examples are the same."""
        if plan and plan.examples == data.examples:
            return cls(plan.probe, plan.train, plan.probed_at, plan.out_of_memory)
        return cls()


def _run_probe(inputs: _Inputs, workload: TrainingWorkload, log: Notify) -> _Probe:
    """Probe where the model would be trained; running out of memory is a result, not an error."""
    config, environment, seconds = inputs.config, inputs.environment, inputs.request.seconds
    request, pod = ProbeRequest(workload=workload, seconds=seconds), environment.on_cluster
    log(f"training for {seconds:g} s{' in a pod' if pod else ''}")
    try:
        if pod:
            result, wall_seconds = measuring.probe_in_pod(request, config, environment, log)
        else:
            result, wall_seconds = measuring.run_in_process("probe", request, ProbeResult)
    except TooLargeError as error:
        return _Probe(probed_at=now(), out_of_memory=str(error).rstrip("."))
    train = estimate_train_time(result, wall_seconds, config.training, inputs.data.examples)
    return _Probe(result, train, now())


def _create_plan(name: str, inputs: _Inputs, probe: _Probe, curve: LearningCurve | None) -> Plan:
    """Return the plan for the environment `name`, without `exceeded_limits`."""
    config, environment, request, catalog, data, cost, device = inputs
    fit = inputs.fit
    if probe.train or probe.out_of_memory:
        fit = "does not fit" if probe.out_of_memory else "fits"
    shards = sum(data.examples.values()) * data.example_bytes
    spot = environment.resources("train").spot
    accelerator = None if _lacks_accelerator(device, probe.result) else device.accelerator
    plan = Plan(
        model=config.name,
        environment=name,
        created=now(),
        parameters=cost.parameters,
        examples=data.examples,
        targets=data.targets,
        device=device.name,
        capacity=device.memory,
        memory=inputs.memory,
        fit=fit,
        flops_per_step=cost.flops,
        steps=config.training.epochs * math.ceil(data.examples["train"] / config.training.batch_size),
        uncounted=cost.uncounted,
        storage=estimate_storage(shards, cost, probe.result, config.training),
        probe=probe.result,
        probed_at=probe.probed_at,
        out_of_memory=probe.out_of_memory,
        train=probe.train,
        cost=estimate_cost(probe.train, accelerator, spot, catalog, request.price),
        options=list_options(catalog, inputs.memory, environment.keras_backend),
        price_date=catalog.read,
        learning_curve=curve,
    )
    warnings, errors = tuple(_find_warnings(plan, inputs)), tuple(_find_errors(plan, inputs))
    return plan.model_copy(update={"warnings": warnings, "errors": errors})


def _create_workload(config: Config, data: Dataset) -> TrainingWorkload:
    code = config.code()
    return TrainingWorkload(
        example_schema=data.example_schema,
        normalization=data.normalization,
        model=config.model,
        training=config.training,
        code=code.to_json() if code else "",
        code_sha256=config.code_sha256(),
        training_examples=data.examples["train"],
        validation_examples=data.examples.get("validation", 0),
        features=data.features,
    )


def _lacks_accelerator(device: Device, probe: ProbeResult | None) -> bool:
    """Return whether the probe ran without the requested accelerator; see `accelerator_optional`."""
    accelerator = device.accelerator
    return bool(accelerator and probe and not probe.device.startswith(accelerator.kind))


def _find_errors(plan: Plan, inputs: _Inputs) -> Iterator[str]:
    """Yield the reasons why the run cannot succeed, with remedies."""
    config, environment, device = inputs.config, inputs.environment, inputs.device
    storage = plan.storage
    if plan.out_of_memory:
        yield plan.out_of_memory
    elif plan.fit == "does not fit":
        yield (
            f"weights, gradients and optimizer need {format_size(plan.memory.fixed)}, but {device.name} has "
            f"{format_size(device.memory or 0)}: use a smaller model or a larger device (modelyard does not "
            "split a model across devices)"
        )
    if device.disk is not None and storage.run > device.disk:
        yield (
            f"the run writes {format_size(storage.run)}, but only {format_size(device.disk)} of the disk is "
            "free: run `modelyard gc`, or set MODELYARD_HOME to a folder on another disk"
        )
    disk = environment.resources("train").ephemeral_storage if config.training.checkpoint_every else None
    if disk and storage.checkpoint > parse_quantity(disk):
        yield (
            f"a checkpoint needs {format_size(storage.checkpoint)}, more than environment.steps.train."
            f"ephemeral_storage, {disk}: increase it, or set training.checkpoint_every to 0"
        )


def _find_warnings(plan: Plan, inputs: _Inputs) -> Iterator[str]:
    config, environment, device = inputs.config, inputs.environment, inputs.device
    train, accelerator, probe = environment.resources("train"), device.accelerator, plan.probe
    if plan.fit == "uncertain":
        batch = plan.memory.largest_batch(device.memory or 0)
        estimate = f"a batch of {batch:,} would fit" if batch else "even one example may not fit"
        yield f"the memory may be too small ({estimate}): check it with --probe"
    if accelerator and probe and _lacks_accelerator(device, probe):
        yield f"the probe ran on {probe.device}, because the node has no {accelerator.type}"
    if probe and probe.load > BUSY_LOAD:
        yield (
            f"the machine was busy during the probe ({probe.load:.1f} processes per core), so the times are "
            "uncertain"
        )
    if accelerator and accelerator.count > 1:
        yield f"train uses only one of {accelerator.count} {accelerator.type}: request one"
    if train.spot and not train.retries:
        yield "a Spot node may be preempted: set environment.steps.train.retries"
    if environment.keras_backend == "jax" and config.model.build:
        yield f"Keras trains with JAX: {config.model.build} must use only keras.ops"
