"""What a plan says in words, a line a thing: on the screen, and in the report of the run after it."""

from collections.abc import Callable

from modelyard.pipelines.planning.plan import Plan
from modelyard.pipelines.planning.quantity import Quantity
from modelyard.pipelines.planning.words import count, dollars, seconds, size


def facts(plan: Plan) -> dict[str, str]:
    """Return what is planned, and what was measured for it, by the name of each thing."""
    memory, work = plan.memory, plan.compute
    bound = "at least " if work.lower_bound else ""
    rows = ", ".join(f"{name} {rows:,}" for name, rows in plan.rows.items())
    found = {
        "model": f"{plan.model}: {plan.parameters:,} parameters in {plan.dtype}; rows: {rows}",
        "compute": f"{bound}{count(work.per_example)} FLOP an example, {count(work.per_step)} a step, "
        f"{count(work.total)} in {work.steps:,} steps",
        "memory": f"{plan.fit} in {plan.place}: {size(memory.fixed)} for variables and gradients, "
        f"{'at most' if memory.bounded else 'about'} {size(memory.most)} with activations",
        "storage": f"{size(plan.storage.run)} a run, {size(plan.storage.version)} a version, "
        f"{size(plan.storage.checkpoint)} a checkpoint",
        "train": _estimate(plan.train, seconds) + f" on {plan.machine}",
        "run": _estimate(plan.run, seconds),
        "money": _estimate(plan.money, dollars),
    }
    if work.lower_bound:
        found["not counted"] = "; ".join(work.lower_bound[:3])
    if time := plan.duration:
        overhead = "" if time.overhead is None else f", of which {seconds(time.overhead)} whatever the batch"
        waits = "" if time.input_share is None else f"; {time.input_share:.0%} waits for input"
        found["of that"] = (
            f"start {seconds(time.start)}, compile {seconds(time.compile)}, {time.epochs} epochs of "
            f"{seconds(time.epoch)} (validation {seconds(time.validation)}), export {seconds(time.export)}; "
            f"a step {seconds(time.step)}{overhead}{waits}"
        )
    if probed := plan.probed:
        device = "" if probed.device_memory is None else f", {size(probed.device_memory)} on the device"
        found["probe"] = f"{size(probed.memory)} of memory at most{device}; {probed.epoch.windows} windows"
    if curve := plan.learning_curve:
        points = ", ".join(f"{one.rows:,}: {one.error:.1%}" for one in curve.points)
        beyond = "; ".join(
            f"{one.rows:,} rows: {one.error:.1%} ({one.low:.1%} to {one.high:.1%})" for one in curve.beyond
        )
        found["more data"] = curve.refused or f"validation error by rows {points}; expected with {beyond}"
    return found


def _estimate(found: Quantity, say: Callable[[float], str]) -> str:
    why = f" ({found.why})" if found.why else ""
    if found.value is None:
        least = say(found.low) if found.low else ""
        least = f"at least {least}; more is " if least and not least.startswith("<") else ""
        return f"{least}unknown{why}"
    if found.low == found.high:
        return say(found.value)
    high = "?" if found.high is None else say(found.high)
    return f"{say(found.value)}, {say(found.low or 0.0)} to {high}{why}"
