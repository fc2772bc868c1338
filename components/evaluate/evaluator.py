"""The step `evaluate`: scores candidate and champion on the same test examples, and decides.

It scores the exported ONNX file, because servers load that file.
"""

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from modelyard.components.errors import DamagedError, EvaluateError, NotFoundError
from modelyard.components.evaluate.gate import decide
from modelyard.components.evaluate.leakage import ScoredChampion, find_leakage, to_printable
from modelyard.components.evaluate.scoring import Scorer, Scores
from modelyard.components.evaluate.spec import EvaluateSpec
from modelyard.components.records import DecisionRecord
from modelyard.components.report.page import ReportedMistake, render_report
from modelyard.components.report.thumbnails import encode_data_uri, format_values
from modelyard.components.shards import Split, read_hashes
from modelyard.components.step import log
from modelyard.components.store.models import open_store
from modelyard.components.store.records import write_record
from modelyard.components.store.storage import open_objects

GOLDEN_EXAMPLES = 16
GOLDEN_VALUES = 2**20  # maximum number of values in all golden requests
MAX_MISTAKES = 12
TRAINING_HASHES = "training_hashes.npy"


@dataclass(frozen=True)
class Evaluation:
    """The result of evaluate."""

    metrics: Metrics
    decision: Decision

    @property
    def promote(self) -> bool:
        """Whether the gate promotes the candidate."""
        return self.decision.decision == "promote"

    def log_to_kfp(self, metrics: Any, details: Any) -> None:
        """Log the metrics and the problem's plot to KFP's Metrics and ClassificationMetrics, for its UI.

        It also writes the files of these artifacts, because `kfp.local` caches only tasks that have them.
        """
        evaluation, primary = self.metrics, self.metrics.primary
        values = {name: metric.value for name, metric in evaluation.values.items()}
        values |= {"examples": float(evaluation.examples)}
        values |= {f"baseline_{name}": value for name, value in evaluation.baseline.items()}
        values |= {
            f"{primary}_low": evaluation.primary_metric.low,
            f"{primary}_high": evaluation.primary_metric.high,
        }
        if evaluation.champion and evaluation.gain:
            values |= {f"champion_{primary}": evaluation.champion.value, "gain": evaluation.gain.value}
        for name, value in values.items():
            metrics.log_metric(name, value)
        plot = problems.get_problem(evaluation.problem).log_plot(evaluation, details)
        artifacts.write_text(Path(metrics.path), json.dumps(values))
        artifacts.write_text(Path(details.path), json.dumps(plot))


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

    The arguments are those of the component `evaluate`; `report_uri` is for the record of the decision.

    Raises:
        EvaluateError: a model cannot be scored on these examples.
        StoreError: the champion cannot be read, or the decision cannot be recorded.
        DataError: an input is missing or malformed, or the champion was trained on test examples and
            data.fail_on forbids it.
    """
    schema = artifacts.read(Path(features) / "schema.json", Schema)
    statistics = artifacts.read(Path(features) / "statistics.json", Statistics)
    training_history = artifacts.read(Path(history) / "history.json", History)
    scale = artifacts.read(Path(features) / "normalization.json", Normalization).target_scale
    training_hashes, test_index = read_hashes(Path(features))
    test = Split.open(Path(features), "test", schema, "Preprocess the data again.")
    signature = artifacts.read(Path(model) / "signature.json", Signature)
    _check_signature(schema, signature, "The candidate", "Train it again on these features.")
    candidate = Scorer(Path(model) / "model.onnx", schema, "The candidate")
    champions = _score_champions(spec, identity, schema, test)
    leakage = find_leakage(champions, test_index, test)
    if spec.fail_on_champion_leakage:
        leakage.check(identity.champion)
    scores = candidate.score(test)
    champion_scores = {version: champions[version].scores for version in leakage.versions}
    problem, training = problems.get_problem(schema.problem), statistics.targets["train"]
    metrics = problem.measure(schema, test.targets, scores, champion_scores, training, leakage.mask)
    metrics = metrics.model_copy(update={"trained_on": leakage.trained_on})
    decision = decide(metrics, spec.gate, identity.champion or None, leakage.notes)
    mistakes = _find_worst_mistakes(test, scores, schema, statistics)
    page = render_report(
        spec.name, metrics, decision, training_history, schema, statistics, identity.data, mistakes
    )
    with artifacts.replace_folder(Path(evaluation)) as folder:
        artifacts.write(folder / "decision.json", decision)
        artifacts.write(folder / "golden.json", _create_golden_requests(candidate, test, schema, scale))
        artifacts.write(folder / "metrics.json", metrics)
        np.save(folder / TRAINING_HASHES, training_hashes)
        artifacts.write_text(folder / "report.html", page)
    artifacts.write_text(Path(report), page)
    _record_decision(spec, identity, decision, metrics, report_uri)
    _log_decision(decision)
    return Evaluation(metrics, decision)


def _score_champions(
    spec: EvaluateSpec, identity: Identity, schema: Schema, test: Split
) -> dict[int, ScoredChampion]:
    """Score the champion, and the earlier champions that can still be compared."""
    if not identity.champion:
        return {}
    champions = {identity.champion: _score_champion(spec, identity.champion, schema, test)}
    for version in identity.earlier:
        try:
            champions[version] = _score_champion(spec, version, schema, test)
        except (DamagedError, EvaluateError, NotFoundError) as error:
            log(f"version {version}, an earlier champion, is not compared: {error}")
    return champions


def _score_champion(spec: EvaluateSpec, version: int, schema: Schema, test: Split) -> ScoredChampion:
    name, models = spec.name, open_store(spec.store)
    description = f"Version {version} of {name}"
    with tempfile.TemporaryDirectory() as scratch:
        folder, model = Path(scratch) / "champion", "model.onnx"
        has_hashes = TRAINING_HASHES in models.manifest(name, version).files
        files = [model, TRAINING_HASHES] if has_hashes else [model]
        manifest: Manifest = models.fetch(name, version, folder, paths=files)
        remedy = "Models with different signatures cannot be compared: give the new model another name."
        _check_signature(schema, manifest.signature, description, remedy)
        scores = Scorer(folder / model, schema, description).score(test)
        hashes = np.load(folder / TRAINING_HASHES, allow_pickle=False) if has_hashes else None
        return ScoredChampion(scores, hashes)


def _check_signature(schema: Schema, signature: Signature, model: str, remedy: str) -> None:
    tensor, description = signature.input, problems.get_description(schema.problem)
    for aspect, actual, expected in (
        ("problem", signature.problem, schema.problem),
        ("shape", tensor.shape, schema.shape),
        ("dtype", tensor.dtype, schema.dtype),
        (description.size_name, ", ".join(signature.output.names), ", ".join(schema.names)),
    ):
        if actual != expected:
            raise EvaluateError(
                f"{model} has the {aspect} {_shorten(actual)}, but the data has {_shorten(expected)}. "
                f"{remedy}"
            )


def _shorten(value: object) -> str:
    text = str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _create_golden_requests(
    candidate: Scorer, test: Split, schema: Schema, scale: tuple[float, ...]
) -> Golden:
    """Return requests and predictions for a few test examples with diverse targets."""
    problem = problems.get_problem(schema.problem)
    numbers = problem.select_golden_examples(schema, test.targets, GOLDEN_EXAMPLES)
    values = test.gather(numbers[:1]).size
    instances = test.gather(numbers[: max(1, GOLDEN_VALUES // values)])
    predictions = candidate.predict(instances).tolist()
    return Golden(
        problem=schema.problem, instances=instances.tolist(), predictions=predictions, scale=list(scale)
    )


def _find_worst_mistakes(
    test: Split, scores: Scores, schema: Schema, statistics: Statistics
) -> list[ReportedMistake]:
    """Return the worst mistakes with their examples, for the report."""
    low, high = (0.0, 255.0) if schema.image else (statistics.minimum, statistics.maximum)
    problem, worst = problems.get_problem(schema.problem), []
    for mistake in problem.find_mistakes(schema, test.targets, scores, MAX_MISTAKES):
        index = np.array([mistake.number])
        (example,), (name,) = test.gather(index), test.names(index)
        image, numbers = encode_data_uri(example, low, high), format_values(example)
        worst.append(ReportedMistake(mistake, to_printable(name), image, numbers))
    return worst


def _record_decision(
    spec: EvaluateSpec, identity: Identity, decision: Decision, metrics: Metrics, report_uri: str
) -> None:
    """Write the decision to the store, where a run whose evaluate is cached reads it."""
    record = DecisionRecord(
        model=spec.name,
        fingerprint=identity.run,
        champion=identity.champion,
        decision=decision,
        metrics=metrics.model_copy(update={"details": {}}),  # they are in metrics.json and the report
        report=report_uri,
    )
    key = records.decision_key(spec.name, identity.run, identity.champion)
    write_record(open_objects(spec.store), key, record)


def _log_decision(decision: Decision) -> None:
    for rule in decision.rules:
        value = "unknown" if rule.value is None else format_number(rule.value)
        log(f"{'passed' if rule.passed else 'failed'}: {rule.rule} {format_number(rule.limit)}: {value}")
    for sentence in (*decision.notes, f"{decision.decision}: {decision.reason}"):
        log(sentence)
