"""A plan for tests of budgets."""

from modelyard.pipelines.planning.plan import Estimate, Memory, Plan, Storage, TrainingCost, TrainTime


def plan_of_an_hour(usd: float) -> Plan:
    """Return the plan of a training of one hour with this cost."""
    total = Estimate(value=3600.0, low=3000.0, high=4000.0)
    train = TrainTime(
        start=1.0, compile=1.0, epoch=100.0, validation=1.0, step=0.1, export=1.0, epochs=36, total=total
    )
    memory = Memory(weights=1, gradients=1, optimizer=1, activations=1, largest_operation=1, batch_size=1)
    return Plan(
        model="digits",
        environment="gke",
        created="2026-11-27T10:00:00+00:00",
        parameters=1,
        examples={"train": 1},
        targets="",
        device="the pod",
        capacity=None,
        memory=memory,
        fit=None,
        flops_per_step=1,
        steps=1,
        uncounted=(),
        storage=Storage(shards=1, model=1, checkpoint=1),
        probe=None,
        probed_at=None,
        out_of_memory=None,
        train=train,
        cost=TrainingCost(per_hour=usd, train=total.scale(usd / total.value), note="a test"),
        options=(),
        price_date="2026-11-23",
        learning_curve=None,
        warnings=(),
        errors=(),
    )
