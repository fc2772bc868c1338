"""The KFP component `explain`, the exit task."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def explain(
    name: str,
    run: str,
    status: dsl.PipelineTaskFinalStatus,
    explanation: dsl.Output[dsl.Markdown],
) -> None:
    """Say how the run ended and why, and tell the webhook if there is one.

    Args:
        name: the model's name.
        run: the run's name.
        status: how the steps ended, as KFP says it.
        explanation: one paragraph.
    """
    from modelyard.components import lifeline

    lifeline.follow()
    from modelyard.components.explain.exit_task import report

    report(name, run, status.state, explanation.path)
