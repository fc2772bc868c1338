"""Asks processes of their own, or a pod, about a model: traced, probed, trained on growing parts."""

from collections.abc import Callable

from modelyard.components.train.measured import LearningCurve, Probed, Question, Traced, Trial
from modelyard.pipelines.config.config import Config
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.planning.dataset import Dataset
from modelyard.pipelines.planning.plan import Wishes
from modelyard.pipelines.planning.pod_probe import probe_in_pod
from modelyard.pipelines.planning.process import ask
from modelyard.pipelines.planning.time import Duration
from modelyard.pipelines.planning.words import seconds

Say = Callable[[str], None]


def question_of(config: Config, data: Dataset) -> Question:
    """Return what is asked about a configuration's model."""
    code = config.code()
    return Question(
        examples=data.examples,
        normalization=data.normalization,
        architecture=config.model.model_dump(mode="json"),
        training=config.training.model_dump(mode="json"),
        code=code.text() if code else "",
        code_sha256=config.code_sha256(),
        rows=data.rows["train"],
        validation=data.rows.get("validation", 0),
    )


def measure(
    question: Question, data: Dataset, wishes: Wishes, config: Config, environment: Environment, say: Say
) -> tuple[Traced, Probed | None, float]:
    """Trace the model, or probe it where it would run, which traces it too.

    Returns:
        What was traced, what was probed, and the seconds of the whole process.

    Raises:
        TooLargeError: there is too little memory for it.
        ModelyardError: the model is wrong, or the pod cannot run.
    """
    if not wishes.probe:
        say("tracing the model")
        traced, wall = ask("trace", question, Traced)
        return traced, None, wall
    if environment.kind == "local":
        say(f"training for {wishes.seconds:g} s")
        trial = Trial(question=question, features=data.features, seconds=wishes.seconds)
        probed, wall = ask("probe", trial, Probed)
        return probed.traced, probed, wall
    say(f"training for {wishes.seconds:g} s in a pod")
    probed, wall = probe_in_pod(Trial(question=question, seconds=wishes.seconds), config, environment, say)
    return probed.traced, probed, wall


def learn(question: Question, data: Dataset, time: Duration | None, say: Say) -> LearningCurve:
    """Train on growing parts of the data, on this machine whatever the environment, and return the curve.

    Args:
        question: the model.
        data: what it learns.
        time: how long one training takes here, if that is known.
        say: takes a few words about what is being done.
    """
    long = f", about {seconds(2 * time.seconds())}" if time else ""
    say(f"training here on growing parts of the data{long}")
    curve, _ = ask("learning", Trial(question=question, features=data.features), LearningCurve)
    return curve
