"""The parity list: every construct that kfp.local and the backend treat differently, or that either loses.

    assert not list(broken(Compiled.of(package)))

The names are those of the rules, in control_flow.py and steps.py.
"""

from collections.abc import Iterator

from modelyard.pipelines.compile.lint import control_flow, steps
from modelyard.pipelines.compile.lint.compiled import Compiled

RULES = (*control_flow.RULES, *steps.RULES)


def broken(compiled: Compiled) -> Iterator[str]:
    """Yield a sentence for each place at which a pipeline steps into a trap."""
    for rule in RULES:
        yield from rule.sentences(compiled)
