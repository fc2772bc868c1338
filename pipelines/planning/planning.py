"""Makes a plan: will it fit, how long, how much, and what can go wrong, before anything is launched.

plan = make(config, environment, "local", Wishes(probe=True), home)
plan.train.value, plan.offers, plan.refusals
"""

import math
from datetime import UTC, datetime
from pathlib import Path

from modelyard.components.errors import TooLargeError
from modelyard.components.train.measured import Probed, Question, Traced
from modelyard.components.train.settings import Training
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.accelerators import Accelerator
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning import money, pod_probe, residuals
from modelyard.pipelines.planning.compute import compute
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.effort import effort
from modelyard.pipelines.planning.facts import facts
from modelyard.pipelines.planning.hardware import Hardware, load
from modelyard.pipelines.planning.inputs import inputs
from modelyard.pipelines.planning.measuring import Say, learn, measure, question_of
from modelyard.pipelines.planning.memory import Fit, Memory, memory
from modelyard.pipelines.planning.offers import Offer, offers, wanted
from modelyard.pipelines.planning.place import Place, place
from modelyard.pipelines.planning.plan import Plan, Wishes
from modelyard.pipelines.planning.quantity import Quantity, exactly, unknown
from modelyard.pipelines.planning.risk import risks
from modelyard.pipelines.planning.speed import Speed, speed_of
from modelyard.pipelines.planning.spot import Preempted, preempted
from modelyard.pipelines.planning.storage import storage
from modelyard.pipelines.planning.survey import look
from modelyard.pipelines.planning.time import Duration, little, other_steps, train_seconds, whole
from modelyard.pipelines.planning.verdict import judge, unfit


def make(
    config: Config,
    environment: Environment,
    name: str,
    wishes: Wishes,
    home: Path,
    say: Say = lambda _: None,
    warn: Say = lambda _: None,
) -> Plan:
    """Return the plan of a configuration, and keep what it predicts for the runs that come.

    Args:
        config: the configuration.
        environment: where it would run.
        name: the environment's name.
        wishes: what is asked of the plan.
        home: where runs and plans are kept.
        say: takes a few words about what is being done.
        warn: takes a sentence about what went wrong beside the plan.

    Raises:
        ModelyardError: the data or the model is wrong, or too little is known.
    """
    hardware = load(wishes.hardware)
    asked = wanted(wishes.on, hardware)
    in_pods = environment.kind != "local"
    if wishes.probe and in_pods:
        pod_probe.check(environment)
    say("preparing the data")
    data = look(config, wishes.rows, wishes.classes, _fetches(config, environment, wishes))
    question = question_of(config, data)
    traced, probed, wall, too_large = _measured(question, data, wishes, config, environment, say)
    speed = speed_of(config, environment, data, probed, wall, home)
    curve = None
    if wishes.learning_curve and not too_large:
        curve = learn(question, data, None if in_pods else speed.time, say)
    if wishes.on:
        speed = speed.elsewhere()
    time, here = speed.time, speed.machine
    held, where = memory(traced), place(environment, hardware, home)
    each, training = math.ceil(data.rows["train"] / config.training.batch_size), config.training
    work = compute(traced, training.epochs * each, training.least_epochs * each)
    mine = None if speed.absent else environment.resources("train").accelerator
    found = offers(
        _with(asked, mine, wishes, hardware), hardware, held, work, traced.dtype, environment.keras_backend
    )
    chosen = _chosen(found, mine, wishes)
    train = train_seconds(time, speed.correction, fetches=in_pods and not little(data))
    if chosen and time is None:
        train = _steps_alone(chosen.train)
    kept = storage(data, traced, probed, early=training.early_stopping is not None)
    steps = other_steps(data, time, speed.past, here=not in_pods and not wishes.on)
    plan = Plan(
        model=config.name,
        environment=name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        machine=f"{chosen.accelerator}x{chosen.count}" if chosen and time is None else here,
        parameters=traced.parameters,
        dtype=traced.dtype,
        rows=data.rows,
        compute=work,
        memory=held,
        fit=_fit(held, where, chosen, *((None, None) if wishes.on else (probed, too_large))),
        place=chosen.accelerator if chosen else here if speed.absent else where.name,
        storage=kept,
        duration=time,
        train=train,
        run=whole(train, steps),
        steps=steps,
        money=_money(train, chosen, hardware, environment, wishes),
        probed=probed,
        too_large=too_large,
        offers=tuple(found),
        rejected=hardware.rejected,
        spot=_spot(train, chosen, time, kept.checkpoint, config.training),
        correction=speed.correction,
        learning_curve=curve,
        effort=effort(config, environment, name, chosen),
        risks=(),
        inputs=inputs(config, data, hardware, work, None if wishes.on else probed, speed, wishes.price),
        refusals=(),
        unjudged=(),
    )
    against = unfit(plan, wishes, chosen)
    judged = judge(train, plan.run, plan.money, wishes, environment, config.training)
    plan = plan.model_copy(
        update={
            "risks": risks(plan, environment, config.training, data, where),
            "refusals": (*against, *judged.against),
            "unjudged": judged.unjudged,
        }
    )
    if not wishes.on:
        price = _money(exactly(money.HOUR), chosen, hardware, environment, wishes).value
        _keep(plan, speed, against, price, home, warn)
    return plan


def _measured(
    question: Question, data: Dataset, wishes: Wishes, config: Config, environment: Environment, say: Say
) -> tuple[Traced, Probed | None, float, str | None]:
    """Return what `measure` does, and why the memory is too small where a probe saw that: then without it."""
    try:
        return *measure(question, data, wishes, config, environment, say), None
    except TooLargeError as error:
        if not wishes.probe:
            raise
        bare = wishes.model_copy(update={"probe": False})
        return *measure(question, data, bare, config, environment, say), str(error)


def _keep(
    plan: Plan, speed: Speed, against: tuple[str, ...], price: float | None, home: Path, warn: Say
) -> None:
    """Keep what is predicted for the runs that come, if there is a place for it.

    Args:
        plan: what is predicted.
        speed: for what.
        against: what speaks against it, whatever the limits.
        price: of an hour of `train`.
        home: where plans are kept.
        warn: takes a sentence.
    """
    prediction = residuals.Prediction(
        created=speed.probed_at or plan.created,
        machine=speed.machine,
        rows=plan.rows,
        train=plan.train,
        whole=plan.run,
        money=plan.money,
        parts=speed.time,
        refusals=against,
        price=price,
        storage=plan.storage,
        facts=facts(plan),
        risks=plan.risks,
    )
    try:
        residuals.keep(home, speed.key, prediction)
    except OSError as error:
        warn(f"The plan is not kept, so the next run cannot be compared with it: {error}.")


def _steps_alone(train: Quantity) -> Quantity:
    """Return what is known of `train` on an accelerator that nobody probed: its steps, and nothing else."""
    if train.value is None:
        return train
    more = "its steps alone: start, compilation, validation and export come on top"
    return train.model_copy(update={"high": None, "why": "; ".join(filter(None, (train.why, more)))})


def _fetches(config: Config, environment: Environment, wishes: Wishes) -> bool:
    """Say whether data is downloaded; a probe in a pod has rows of noise, and what CIFAR-10 is, is known."""
    needed = environment.kind == "local" or config.data.kind != "cifar10"
    return wishes.fetch or wishes.learning_curve or (wishes.probe and needed)


def _fit(
    held: Memory, where: Place, chosen: Offer | None, probed: Probed | None, too_large: str | None
) -> Fit:
    """Return whether it fits where it would run; a probe there has seen whether it does."""
    if too_large:
        return "does not fit"
    if probed:
        return "fits"
    return chosen.fit if chosen else where.fit(held)


def _with(
    asked: list[tuple[str, int]], mine: Accelerator | None, wishes: Wishes, hardware: Hardware
) -> list[tuple[str, int]]:
    """Return what is asked about, and the accelerator of the environment."""
    if mine is None or wishes.on or mine.type not in hardware.rows:
        return asked
    return [one for one in asked if one[0] != mine.type] + [(mine.type, mine.count)]


def _chosen(found: list[Offer], mine: Accelerator | None, wishes: Wishes) -> Offer | None:
    """Return where it would run: the best of what is asked about, else the accelerator of the environment."""
    if wishes.on:
        return found[0]
    return next((one for one in found if mine and one.accelerator == mine.type), None)


def _money(
    train: Quantity, chosen: Offer | None, hardware: Hardware, environment: Environment, wishes: Wishes
) -> Quantity:
    if wishes.price is not None:
        return money.at(train, wishes.price)
    if chosen is None:
        return unknown("no price is known for this machine; --price gives one")
    spot = environment.resources("train").spot and not wishes.on
    return money.cost(train, hardware.rows[chosen.accelerator].price, chosen.count, spot)


def _spot(
    train: Quantity, chosen: Offer | None, time: Duration | None, checkpoint: int, training: Training
) -> tuple[Preempted, ...]:
    """Return what preemptions do to a training whose length is known, on an accelerator."""
    if chosen is None or train.value is None:
        return ()
    restart = time.start + time.compile if time else 0.0  # else the screen says that it is not counted
    return preempted(train.value, training.epochs, checkpoint, restart, training.checkpoint_every)
