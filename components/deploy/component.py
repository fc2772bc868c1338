"""The KFP component `deploy`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def deploy(
    model: dsl.Input[dsl.Model],
    history: dsl.Input[dsl.Artifact],
    evaluation: dsl.Input[dsl.Artifact],
    report: dsl.Input[dsl.HTML],
    name: str,
    run: str,
    champion: int,
    data: str,
    recipe_sha256: str,
    code_sha256: str,
    config: str,
    serving: str,
    store: str,
    rollout: str,
    target: str,
    outcome: dsl.Output[dsl.Artifact],
) -> int:
    """Publish an immutable version, verify it in a real server, make it the champion.

    Args:
        model: what train wrote.
        history: what train wrote about its epochs.
        evaluation: what evaluate wrote.
        report: report.html.
        name: the model's name.
        run: the run's fingerprint; the same run gives the same version, however often it starts.
        champion: the version that the candidate was compared with; 0 when there was none.
        data: the data's fingerprint.
        recipe_sha256: fingerprint of the configuration and the code that decide the result.
        code_sha256: fingerprint of the user's own model code; empty for the built-in network.
        config: the resolved configuration as JSON, for the manifest.
        serving: `serving` section as JSON.
        store: `store` section as JSON.
        rollout: `rollout` section as JSON.
        target: where the server runs, as JSON (`modelyard.components.deploy.settings.Target`).
        outcome: outcome.json, the version and the decision in the end.

    Returns:
        The version.
    """
    from modelyard.components.step import step

    with step("deploy"):
        from modelyard.components.deploy.deployer import deploy

        return deploy(
            model.path, history.path, evaluation.path, report.path, name, run, champion, data,
            recipe_sha256, code_sha256, config, serving, store, rollout, target, outcome.path,
        )  # fmt: skip
