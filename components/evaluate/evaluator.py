"""The work of the step `evaluate`: score candidate and champion on the same test rows, and decide.

    result = evaluate(model, features, history, spec, identity, "report.html", "evaluation")
    result.promote

The exported ONNX model is scored, because that is what is served.
"""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from modelyard.components import artifacts, problems, records
from modelyard.components.artifacts import (
    Decision,
    Golden,
    History,
    Identity,
    Manifest,
    Metrics,
    Normalization,
    Repeats,
    Schema,
    Signature,
    Statistics,
    format_number,
)
from modelyard.components.errors import DamagedError, DataError, EvaluateError, NotFoundError
from modelyard.components.evaluate.gate import ENOUGH_ROWS, decide
from modelyard.components.evaluate.scoring import Scorer, Scores
from modelyard.components.evaluate.spec import EvaluateSpec
from modelyard.components.problems.base import PlotArtifact
from modelyard.components.records import DecisionRecord
from modelyard.components.report.page import Example, render
from modelyard.components.report.thumbnails import data_uri, numbers
from modelyard.components.shards import Hashes, Rows, Split, read_hashes
from modelyard.components.step import log
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.components.store.storage import open_objects

GOLDEN_ROWS = 16
GOLDEN_VALUES = 2**20
MISTAKES = 12
TRAINING_HASHES = "training_hashes.npy"
EXAMPLES = 5


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
        evaluation: directory to write: decision.json, golden.json, metrics.json, report.html, and
            training_hashes.npy: the version has a record of its training rows.

    Raises:
        EvaluateError: a model cannot be scored on these rows.
        StoreError: the champion cannot be read, or the decision cannot be recorded.
        DataError: an input is missing or malformed, or the champion was trained on test rows and data.fail_on
            forbids it.
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
    champions = _champions(spec, identity, schema, test)
    training_hashes, rows = read_hashes(Path(features))
    leakage = Leakage.of(champions, rows, test)
    if spec.fail_on_champion_leakage:
        leakage.check(identity.champion)
    others = {version: champions[version].scores for version in leakage.versions}
    training = statistics.targets["train"]
    scores = candidate.scores(test)
    metrics = problem.measure(schema, test.targets, scores, others, training, leakage.compared).model_copy(
        update={"trained_on": leakage.trained_on}
    )
    decision = decide(metrics, spec.gate, champion, leakage.notes)
    scale = artifacts.read(Path(features) / "normalization.json", Normalization).target_deviation
    mistakes = _mistakes(test, scores, schema, statistics)
    page = render(spec.name, metrics, decision, record, schema, statistics, identity.data, mistakes)
    with artifacts.writing(Path(evaluation)) as directory:
        artifacts.write(directory / "decision.json", decision)
        artifacts.write(directory / "golden.json", _golden(candidate, test, schema, scale))
        artifacts.write(directory / "metrics.json", metrics)
        np.save(directory / TRAINING_HASHES, training_hashes)
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


class Champion(NamedTuple):
    """What is known of a champion: the scores of its answers, and the hashes of its training rows."""

    scores: Scores
    trained_on: Hashes | None


class Leakage(NamedTuple):
    """Which test rows champions were trained on: such a row makes them look better than they are.

    Attributes:
        trained_on: test rows that a version was trained on, of each version that has a record of them.
        compared: the test rows (n,) that are left for the comparison.
        versions: the champions that are compared on them; empty when too few rows are left.
        notes: sentences about it.
    """

    trained_on: dict[int, Repeats]
    compared: NDArray[np.bool_]
    versions: tuple[int, ...]
    notes: tuple[str, ...]

    @classmethod
    def of(cls, champions: Mapping[int, Champion], rows: Rows, test: Split) -> "Leakage":
        """Return what it is for these champions, today's first.

        Rows that today's champion was trained on are left out, and those of an earlier champion as long as at
        least half of the rows remain; otherwise that champion is left out.
        """
        total, first = len(rows.hashes), next(iter(champions), None)
        compared = np.ones(total, np.bool_)
        trained_on: dict[int, Repeats] = {}
        versions: list[int] = []
        notes: list[str] = []
        for version, champion in champions.items():
            who = f"version {version}, {'the' if version == first else 'an earlier'} champion,"
            if champion.trained_on is None:
                versions.append(version)
                continue
            known = np.isin(rows.hashes, champion.trained_on)
            shown = np.flatnonzero(known)[:EXAMPLES]
            names = zip(test.names(shown), shown, strict=True)
            examples = tuple(_readable(name) or rows.name(row) for name, row in names)
            trained_on[version] = Repeats(count=int(known.sum()), examples=examples)
            left = compared & ~known
            enough = max(ENOUGH_ROWS, 0 if version == first else compared.sum() / 2)
            usable = left.sum() >= enough
            if usable:
                compared = left
                versions.append(version)
            if known.any():
                notes.append(
                    f"{who} was trained on {known.sum():,} of the {total:,} test rows, such as "
                    f"{', '.join(examples)}: "
                    + ("they are left out of the comparison" if usable else "it is not compared")
                )
        if unknown := [str(version) for version in champions if version not in trained_on]:
            notes.append(
                f"no record of the training rows of version {', '.join(unknown)}: test rows may be among them"
            )
        return cls(trained_on, compared, tuple(versions) if first in versions else (), tuple(notes))

    def check(self, version: int) -> None:
        """Raise DataError when a version was trained on test rows."""
        found = self.trained_on.get(version)
        if found and found.count:
            raise DataError(
                f"The champion, version {version}, was trained on {found.count:,} of today's test rows, such "
                f"as {', '.join(found.examples)}, and data.fail_on has champion_leakage. Use other test "
                "rows, or take champion_leakage out of data.fail_on."
            )


def _champions(spec: EvaluateSpec, identity: Identity, schema: Schema, test: Split) -> dict[int, Champion]:
    """Return the champion, and those before it as far as these can still be compared."""
    if not identity.champion:
        return {}
    found = {identity.champion: _champion(spec.store, spec.name, identity.champion, schema, test)}
    for version in identity.earlier:
        try:
            found[version] = _champion(spec.store, spec.name, version, schema, test)
        except (DamagedError, EvaluateError, NotFoundError) as error:
            log(f"version {version}, an earlier champion, is not compared: {error}")
    return found


def _champion(store: Store, name: str, version: int, schema: Schema, test: Split) -> Champion:
    who, models = f"the champion, version {version} of {name},", open_store(store)
    with tempfile.TemporaryDirectory() as folder:
        into, model = Path(folder) / "champion", "model.onnx"
        recorded = TRAINING_HASHES in models.manifest(name, version).files
        only = [model, TRAINING_HASHES] if recorded else [model]
        manifest: Manifest = models.fetch(name, version, into, only=only)
        remedy = f"The two cannot be compared: give the new model a name of its own instead of {name}."
        _check_same(schema, manifest.signature, who, remedy)
        scores = Scorer(into / model, schema, who).scores(test)
        return Champion(scores, np.load(into / TRAINING_HASHES, allow_pickle=False) if recorded else None)


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
        found.append(Example(mistake, _readable(name), data_uri(example, low, high), numbers(example)))
    return found


def _readable(name: str) -> str:
    """Return a row's name without bytes that are no text."""
    return name.encode("utf-8", "replace").decode()
