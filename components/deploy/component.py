"""The KFP component `deploy`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def deploy(
    model: dsl.Input[dsl.Model],
    history: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    spec: str,
    identity: str,
    outcome: dsl.Output[dsl.Artifact],
) -> int:
    """Publish an immutable version, verify it in a server, and make it the champion.

    Args:
        model: the model, from train.
        history: the metrics of each epoch, from train.
        evaluation: metrics, decision, golden requests and report, from evaluate.
        spec: DeploySpec as JSON.
        identity: the run's fingerprint, from fingerprint; the same run always gets the same version.
        outcome: outcome.json, the version and the decision.

    Returns:
        The version.
    """
    from modelyard.components.step import step

    with step("deploy"):
        from modelyard.components.artifacts import Identity
        from modelyard.components.deploy.deployer import deploy
        from modelyard.components.deploy.spec import DeploySpec

        return deploy(
            model.path,
            history.path,
            evaluation.path,
            DeploySpec.from_json(spec),
            Identity.model_validate_json(identity),
            outcome.path,
        )
