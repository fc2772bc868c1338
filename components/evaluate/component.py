"""The KFP component `evaluate`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def evaluate(
    model: dsl.Input[dsl.Model],
    features: dsl.Input[dsl.Dataset],
    history: dsl.Input[dsl.Artifact],
    name: str,
    gate: str,
    store: str,
    run: str,
    champion: int,
    metrics: dsl.Output[dsl.Metrics],
    confusion: dsl.Output[dsl.ClassificationMetrics],
    report: dsl.Output[dsl.HTML],
    evaluation: dsl.Output[dsl.Artifact],
) -> bool:
    """Score candidate and champion on the same test rows; the gate decides.

    Args:
        model: what train wrote.
        features: what preprocess wrote.
        history: what train wrote about its epochs.
        name: the model's name.
        gate: `gate` section as JSON, or `null`: then every model is promoted.
        store: `store` section as JSON.
        run: the run's fingerprint, for the record of the decision.
        champion: the version to compare with; 0 when there is none.
        metrics: numbers that the KFP UI shows.
        confusion: the confusion matrix that the KFP UI shows.
        report: report.html, self-contained.
        evaluation: decision.json, golden.json and metrics.json.

    Returns:
        Whether to promote the candidate.
    """
    from modelyard.components.step import step

    with step("evaluate"):
        from modelyard.components.evaluate.evaluator import evaluate

        result = evaluate(
            model.path,
            features.path,
            history.path,
            name,
            gate,
            store,
            run,
            champion,
            report.path,
            report.uri,
            evaluation.path,
        )
        result.log(metrics, confusion)
        return result.promote
