"""Renders the report: what was decided and why, how the model did, what it was made of.

    html = render("digits", metrics, decision, history, schema, statistics)

One page without scripts and without anything from elsewhere. Names come from the user's data, so the
template escapes everything.
"""

from components.artifacts import Decision, History, Metrics, Schema, Statistics
from components.report import plots


def render(
    name: str,
    metrics: Metrics,
    decision: Decision,
    history: History,
    schema: Schema,
    statistics: Statistics,
) -> str:
    """Return the page as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("components.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pictures = (
        plots.curves("Accuracy", "accuracy", history.metrics),
        plots.curves("Loss", "loss", history.metrics),
    )
    return environment.get_template("report.html").render(
        name=name,
        metrics=metrics,
        decision=decision,
        history=history,
        schema=schema,
        statistics=statistics,
        bars=plots.bars(metrics),
        curves=[one for one in pictures if one],
        cells=plots.cells(metrics),
        confusions=plots.confusions(metrics),
        ranked=plots.ranked(metrics),
        view=(plots.WIDTH, plots.HEIGHT, plots.LEFT, plots.RIGHT, plots.TOP, plots.BOTTOM),
    )
