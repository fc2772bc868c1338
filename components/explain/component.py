"""The KFP component `explain`, the exit task."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def explain(
    name: str,
    run: str,
    store: str,
    status: dsl.PipelineTaskFinalStatus,
    explanation: dsl.Output[dsl.Markdown],
) -> None:
    """Say how the run ended and why, tell the webhook if there is one, and record it in the store.

    Args:
        name: the model's name.
        run: the run's name.
        store: `store` section as JSON.
        status: how the steps ended, as KFP says it.
        explanation: one paragraph.
    """
    from modelyard.components.step import step

    with step("explain"):
        from modelyard.components.explain.exit_task import report

        report(name, run, store, status.state, explanation.path)
