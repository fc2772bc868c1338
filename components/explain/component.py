"""The KFP component `explain`."""

from kfp import dsl


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def explain(
    spec: str,
    run: str,
    status: dsl.PipelineTaskFinalStatus,
    explanation: dsl.Output[dsl.Markdown],
) -> None:
    """Write how the run ended and why, post it to the webhook if there is one, and record it in the store.

    Args:
        spec: ExplainSpec as JSON.
        run: the run's name.
        status: the final status of the steps, from KFP.
        explanation: the paragraph, as Markdown.
    """
    from modelyard.components.step import step

    with step("explain"):
        from modelyard.components.explain.exit_task import report_end
        from modelyard.components.explain.spec import ExplainSpec

        report_end(ExplainSpec.from_json(spec), run, status.state, explanation.path)
