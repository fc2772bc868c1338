"""The KFP component `evaluate`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    history: dsl.Input[dsl.Artifact],
    spec: str,
    identity: str,
    metrics: dsl.Output[dsl.Metrics],
    details: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    evaluation: dsl.Output[dsl.Artifact],
) -> bool:
    """Score candidate and champion on the same test examples; the gate decides.

    Args:
        model: the model, from train.
        features: the features, from preprocess.
        history: the metrics of each epoch, from train.
        spec: EvaluateSpec as JSON.
        identity: Identity as JSON, from fingerprint; it names the champion to compare with.
        metrics: metrics for the KFP UI.
        details: plots of the problem for the KFP UI, such as a confusion matrix; may be empty.
        report: report.html, self-contained, for the KFP UI.
        evaluation: decision.json, golden.json, metrics.json, report.html and training_hashes.npy.

    Returns:
        Whether to promote the candidate.
    """
    from modelyard.components.step import step

    with step("evaluate"):
        from modelyard.components.artifacts import Identity
        from modelyard.components.evaluate.evaluator import evaluate
        from modelyard.components.evaluate.spec import EvaluateSpec

        result = evaluate(
            model.path,
            features.path,
            history.path,
            EvaluateSpec.from_json(spec),
            Identity.model_validate_json(identity),
            report.path,
            report.uri,
            evaluation.path,
        )
        result.log_to_kfp(metrics, details)
        return result.promote
