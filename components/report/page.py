"""Renders the report of an evaluation: decision, metrics, training and data.

    html = render_report("digits", metrics, decision, history, schema, statistics)

The page is self-contained and contains no scripts. Its middle part is the template with the name of the
problem. The templates escape all values, because names come from user data. The step evaluate renders the
page and may be cached, so the page does not mention a run. `add_run_facts` adds the name and date of a run.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from html import escape
from typing import Any, NamedTuple

from modelyard.components import problems
from modelyard.components.artifacts import Decision, History, Metrics, Schema, Statistics, format_number
from modelyard.components.problems.base import Mistake
from modelyard.components.report import plots

HEADER_END, MAIN_END = "</header>", "</main>"
MAX_PATH_LENGTH = 45


class ReportedMistake(NamedTuple):
    """A wrongly predicted test example: its name in the source, its image as a data URI, its first values.

    A field that does not apply is empty.
    """

    mistake: Mistake
    name: str = ""
    image: str = ""
    numbers: str = ""


class PlanComparison(NamedTuple):
    """A planned and an actual value as text; `ratio` is actual / planned, None if a value is missing."""

    name: str
    planned: str
    actual: str
    ratio: float | None


def render_report(
    name: str,
    metrics: Metrics,
    decision: Decision,
    history: History,
    schema: Schema,
    statistics: Statistics,
    fingerprint: str = "",
    mistakes: Sequence[ReportedMistake] = (),
) -> str:
    """Return the page as HTML.

    `fingerprint` is the fingerprint of the data. `mistakes` are in order, the worst first.
    """
    training_metrics = [name for name in history.metrics if not name.startswith("val_")]
    curve_names = sorted(training_metrics, key=lambda name: (name != metrics.primary, name != "loss"))
    paired_metrics = metrics.same_examples
    candidate = paired_metrics.candidate if paired_metrics else metrics.values
    page: str = _load_template("report.html").render(
        name=name,
        metrics=metrics,
        decision=decision,
        history=history,
        schema=schema,
        statistics=statistics,
        fingerprint=fingerprint,
        mistakes=mistakes,
        candidate=candidate,
        examples=paired_metrics.examples if paired_metrics else metrics.examples,
        bars=plots.build_bars(candidate[metrics.primary], metrics.champion),
        curves=[plots.build_curves(humanize(name), name, history.metrics) for name in curve_names],
        figures=problems.get_problem(metrics.problem).build_figures(metrics),
        size=problems.get_description(metrics.problem).size_name,
    )
    return page


def add_run_facts(page: str, facts: Mapping[str, str]) -> str:
    """Return the page with the facts about its run below the header; the keys of `facts` are labels."""
    items = (f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items() if value)
    section = f'\n<section class="wide">\n  <h2>Run</h2>\n  <dl>{"".join(items)}</dl>\n</section>'
    return page.replace(HEADER_END, HEADER_END + section, 1)


def add_plan(page: str, facts: Mapping[str, str], rows: Sequence[PlanComparison], about: str) -> str:
    """Return a page from `render_report` with the plan, and its comparison with actual values.

    The keys of `facts` are labels. `about` is a sentence about the origin of the plan.
    """
    before, end, after = page.rpartition(MAIN_END)
    plan = _load_template("plan.html").render(facts=facts, rows=rows, about=about) if end else ""
    return f"{before}{plan}{end}{after}"


def humanize(name: str) -> str:
    """Return the name of a metric or a setting with spaces instead of underscores."""
    return name.replace("_", " ")


def _format_setting(value: Any) -> str:
    """Return a training setting as text; a Keras object is shown as its constructor call."""
    if isinstance(value, Mapping) and "class_name" in value:
        config = value.get("config", {}).items()
        arguments = (
            f"{key}={_format_setting(item)}" for key, item in config if item is not None and key != "name"
        )
        return f"{value['class_name']}({', '.join(arguments)})"
    if isinstance(value, Mapping):
        return "; ".join(
            f"{key} {_format_setting(item)}" for key, item in value.items() if item not in (None, [], {})
        )
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(map(_format_setting, value))
    if value is None:
        return "none"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _shorten_path(path: str) -> str:
    """Return the end of a path, which contains the file name."""
    return path if len(path) <= MAX_PATH_LENGTH else f"…{path[-MAX_PATH_LENGTH:]}"


@cache
def _load_template(name: str) -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("modelyard.components.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": format_number,
        "humanize": humanize,
        "setting": _format_setting,
        "shorten_path": _shorten_path,
    }
    environment.globals["plots"] = plots
    return environment.get_template(name)
