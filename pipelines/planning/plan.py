"""The plan, as a record: what `modelyard plan --output json` prints."""

from pathlib import Path

from modelyard.components.artifacts import Record
from modelyard.components.train.measured import LearningCurve, Probed
from modelyard.pipelines.planning.compute import Compute
from modelyard.pipelines.planning.effort import Effort
from modelyard.pipelines.planning.memory import Fit, Memory
from modelyard.pipelines.planning.offers import Offer
from modelyard.pipelines.planning.quantity import Input, Quantity
from modelyard.pipelines.planning.risk import Risk
from modelyard.pipelines.planning.spot import Preempted
from modelyard.pipelines.planning.storage import Storage
from modelyard.pipelines.planning.time import Duration

PROBE_SECONDS = 20.0


class Wishes(Record):
    """What somebody asks of a plan.

    `on` are accelerators as nvidia-l4x2, `price` is USD per hour of the machine, `budget` in USD, `deadline`
    in hours. `fetch` downloads data that is not here; `rows` and `classes` say what it is instead.
    """

    on: tuple[str, ...] = ()
    probe: bool = False
    seconds: float = PROBE_SECONDS
    learning_curve: bool = False
    fetch: bool = False
    rows: int | None = None
    classes: int | None = None
    hardware: Path | None = None
    price: float | None = None
    budget: float | None = None
    deadline: float | None = None


class Plan(Record):
    """A plan. Sizes are in bytes, times in seconds, money in USD.

    `train` and `run` are what the step and the whole run take where the plan is for (`machine`), `money` what
    the step costs there; `offers` is what accelerators would do. `fit` says whether the model fits into
    `place`, `too_large` what a probe said that had too little memory. `effort` is what somebody has to do
    before it can be started there, `refusals` empty when nothing speaks against the run; `unjudged` are
    limits of which nobody can tell.
    """

    model: str
    environment: str
    created: str
    machine: str
    parameters: int
    dtype: str
    rows: dict[str, int]
    compute: Compute
    memory: Memory
    fit: Fit
    place: str
    storage: Storage
    duration: Duration | None
    train: Quantity
    run: Quantity
    steps: dict[str, Quantity]
    money: Quantity
    probed: Probed | None
    too_large: str | None = None
    offers: tuple[Offer, ...]
    rejected: dict[str, str]
    spot: tuple[Preempted, ...]
    correction: Quantity | None
    learning_curve: LearningCurve | None
    effort: tuple[Effort, ...]
    risks: tuple[Risk, ...]
    inputs: tuple[Input, ...]
    refusals: tuple[str, ...]
    unjudged: tuple[str, ...]
