"""Renders the report: what was decided and why, how the model did, what it was made of.

    html = render("digits", metrics, decision, history, schema, statistics)

One page without scripts and without anything from elsewhere; the middle of it is the template that is named
after the problem. Names come from the user's data, so the
template escapes everything.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from modelyard.components import problems
from modelyard.components.artifacts import Decision, History, Metrics, Schema, Statistics, format_number
from modelyard.components.report import plots

END = "</main>"


class Planned(NamedTuple):
    """What was planned and what happened, in words; `ratio` is actual / planned, None without one of them."""

    name: str
    planned: str
    actual: str
    ratio: float | None


def render(
    name: str,
    metrics: Metrics,
    decision: Decision,
    history: History,
    schema: Schema,
    statistics: Statistics,
) -> str:
    """Return the page as HTML."""
    shown = (metrics.primary, "loss")
    pictures = [plots.curves(name.capitalize(), name, history.metrics) for name in shown]
    page: str = _template("report.html").render(
        name=name,
        metrics=metrics,
        decision=decision,
        history=history,
        schema=schema,
        statistics=statistics,
        bars=plots.bars(metrics),
        curves=[one for one in pictures if one],
        figures=problems.of(metrics.problem).figures(metrics),
        size=problems.describe(metrics.problem).size,
        view=(plots.WIDTH, plots.HEIGHT, plots.LEFT, plots.RIGHT, plots.TOP, plots.BOTTOM),
    )
    return page


def with_plan(page: str, facts: Mapping[str, str], rows: Sequence[Planned], about: str) -> str:
    """Return a page with the plan at its end, and what happened beside it.

    Args:
        page: what `render` returned.
        facts: what the plan said, by topic.
        rows: what is compared.
        about: a sentence on where the plan came from.
    """
    before, end, after = page.rpartition(END)
    plan = _template("plan.html").render(facts=facts, rows=rows, about=about) if end else ""
    return f"{before}{plan}{end}{after}"


def _template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modelyard.components.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = format_number
    environment.globals["scatter"] = plots.scatter
    return environment.get_template(name)
