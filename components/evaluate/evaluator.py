"""The work of the step `evaluate`: score candidate and champion on the same test rows, and decide.

    result = evaluate(model, features, history, spec, identity, "report.html", "evaluation")
    result.promote

The exported ONNX model is scored, because that is what is served.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from modelyard.components import artifacts, problems, records
from modelyard.components.artifacts import (
    Decision,
    Golden,
    History,
    Identity,
    Manifest,
    Metrics,
    Normalization,
    Schema,
    Signature,
    Statistics,
    format_number,
)
from modelyard.components.errors import EvaluateError, NotFoundError
from modelyard.components.evaluate.gate import decide
from modelyard.components.evaluate.scoring import Scorer, Scores
from modelyard.components.evaluate.spec import EvaluateSpec
from modelyard.components.problems.base import PlotArtifact
from modelyard.components.records import DecisionRecord
from modelyard.components.report.page import Example, render
from modelyard.components.report.thumbnails import data_uri, numbers
from modelyard.components.shards import Split
from modelyard.components.step import log
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects

GOLDEN_ROWS = 16
GOLDEN_VALUES = 2**20
MISTAKES = 12


class MetricsArtifact(Protocol):
    """What we need of KFP's Metrics."""

    path: str

    def log_metric(self, metric: str, value: float) -> None:
        """Record a number."""


class DetailsArtifact(PlotArtifact, Protocol):
    """What we need of KFP's ClassificationMetrics."""

    path: str


@dataclass(frozen=True)
class Evaluation:
    """What evaluate found."""

    metrics: Metrics
    decision: Decision

    @property
    def promote(self) -> bool:
        """Whether the candidate becomes the champion."""
        return self.decision.decision == "promote"

    def log(self, metrics: MetricsArtifact, details: DetailsArtifact) -> None:
        """Tell the KFP UI, and write the artifacts' files: without one, the task is never cached."""
        found, primary = self.metrics, self.metrics.primary
        numbers = {name: metric.value for name, metric in found.values.items()}
        numbers |= {"rows": float(found.rows)}
        numbers |= {f"constant_{name}": value for name, value in found.baseline.items()}
        numbers |= {f"{primary}_low": found.main.low, f"{primary}_high": found.main.high}
        if found.champion and found.gain:
            numbers |= {f"champion_{primary}": found.champion.value, "gain": found.gain.value}
        for name, value in numbers.items():
            metrics.log_metric(name, value)
        shown = problems.of(found.problem).log_plot(found, details)
        artifacts.write_text(Path(metrics.path), json.dumps(numbers))
        artifacts.write_text(Path(details.path), json.dumps(shown))


def evaluate(
    model: str,
    features: str,
    history: str,
    spec: EvaluateSpec,
    identity: Identity,
    report: str,
    report_uri: str,
    evaluation: str,
) -> Evaluation:
    """Score the candidate and the champion, decide, and write the evaluation and the report.

    Args:
        model: directory that train wrote.
        features: directory that preprocess wrote.
        history: directory with history.json.
        spec: the model's name, the gate, and the store that has the champion.
        identity: the run, with the version to compare with.
        report: file to write, HTML.
        report_uri: its URI, for the record of the decision.
        evaluation: directory to write: decision.json, golden.json, metrics.json and report.html.

    Raises:
        EvaluateError: a model cannot be scored on these rows.
        StoreError: the champion cannot be read, or the decision cannot be recorded.
        DataError: an input is missing or malformed.
    """
    schema = artifacts.read(Path(features) / "schema.json", Schema)
    statistics = artifacts.read(Path(features) / "statistics.json", Statistics)
    record = artifacts.read(Path(history) / "history.json", History)
    signature = artifacts.read(Path(model) / "signature.json", Signature)
    _check_same(schema, signature, "the candidate", "Train it again on these features.")
    test = Split(Path(features), "test")
    problem = problems.of(schema.problem)
    candidate = Scorer(Path(model) / "model.onnx", schema, "the candidate")
    champion = identity.champion or None
    others = _champions(spec, identity, schema, test)
    training = statistics.targets["train"]
    scores = candidate.scores(test)
    metrics = problem.measure(schema, test.targets, scores, others, training)
    decision = decide(metrics, spec.gate, champion)
    scale = artifacts.read(Path(features) / "normalization.json", Normalization).target_deviation
    mistakes = _mistakes(test, scores, schema, statistics)
    page = render(spec.name, metrics, decision, record, schema, statistics, identity.data, mistakes)
    with artifacts.writing(Path(evaluation)) as directory:
        artifacts.write(directory / "decision.json", decision)
        artifacts.write(directory / "golden.json", _golden(candidate, test, schema, scale))
        artifacts.write(directory / "metrics.json", metrics)
        artifacts.write_text(directory / "report.html", page)
    artifacts.write_text(Path(report), page)
    recorded = DecisionRecord(
        model=spec.name,
        fingerprint=identity.run,
        champion=identity.champion,
        decision=decision,
        metrics=metrics.model_copy(update={"details": {}}),  # the report and metrics.json have them
        report=report_uri,
    )
    key = records.decision_key(spec.name, identity.run, identity.champion)
    records.write(open_objects(spec.store), key, recorded)
    for rule in decision.rules:
        value = "unknown" if rule.value is None else format_number(rule.value)
        log(f"{'passed' if rule.passed else 'failed'}: {rule.rule} {format_number(rule.limit)}: {value}")
    for sentence in (*decision.notes, f"{decision.decision}: {decision.reason}"):
        log(sentence)
    return Evaluation(metrics, decision)


def _champions(spec: EvaluateSpec, identity: Identity, schema: Schema, test: Split) -> dict[int, Scores]:
    """Return the scores of the champion and of those before it, as far as these can still be compared."""
    if not identity.champion:
        return {}
    found = {identity.champion: _champion(spec.store, spec.name, identity.champion, schema, test)}
    for version in identity.earlier:
        try:
            found[version] = _champion(spec.store, spec.name, version, schema, test)
        except (EvaluateError, NotFoundError) as error:
            log(f"version {version}, an earlier champion, is not compared: {error}")
    return found


def _champion(store: Store, name: str, version: int, schema: Schema, test: Split) -> Scores:
    who = f"the champion, version {version} of {name},"
    with tempfile.TemporaryDirectory() as folder:
        into = Path(folder) / "champion"
        manifest: Manifest = open_store(store).fetch(name, version, into, only=["model.onnx"])
        remedy = f"The two cannot be compared: give the new model a name of its own instead of {name}."
        _check_same(schema, manifest.signature, who, remedy)
        return Scorer(into / "model.onnx", schema, who).scores(test)


def _check_same(schema: Schema, signature: Signature, who: str, remedy: str) -> None:
    given = signature.input
    for what, theirs, ours in (
        ("problem", signature.problem, schema.problem),
        ("shape", given.shape, schema.shape),
        ("dtype", given.dtype, schema.dtype),
        (problems.describe(schema.problem).size, signature.output.names, schema.names),
    ):
        if theirs != ours:
            raise EvaluateError(
                f"The {what} of {who} is {_short(theirs)}, but the data's is {_short(ours)}. {remedy}"
            )


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _golden(candidate: Scorer, test: Split, schema: Schema, scale: tuple[float, ...]) -> Golden:
    """Return requests and answers for a few test rows, whose targets are as different as possible."""
    rows = problems.of(schema.problem).golden_rows(schema, test.targets, GOLDEN_ROWS)
    values = test.gather(rows[:1]).size
    instances = test.gather(rows[: max(1, GOLDEN_VALUES // values)])
    answers = candidate.answers(instances).tolist()
    return Golden(
        problem=schema.problem, instances=instances.tolist(), predictions=answers, scale=list(scale)
    )


def _mistakes(test: Split, scores: Scores, schema: Schema, statistics: Statistics) -> list[Example]:
    """Return the worst answers with their examples, for the report."""
    low, high = (0.0, 255.0) if schema.image else (statistics.minimum, statistics.maximum)
    found = []
    for mistake in problems.of(schema.problem).mistakes(schema, test.targets, scores, MISTAKES):
        row = np.array([mistake.row])
        (example,), (name,) = test.gather(row), test.names(row)
        shown = name.encode("utf-8", "replace").decode()
        found.append(Example(mistake, shown, data_uri(example, low, high), numbers(example)))
    return found
