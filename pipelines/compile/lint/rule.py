"""A trap: what a pipeline must not have, why, and what to write instead."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from modelyard.pipelines.compile.lint.compiled import Compiled


@dataclass(frozen=True)
class Rule:
    """A trap; `places` yields where a pipeline steps into it."""

    name: str
    why: str
    remedy: str
    places: Callable[[Compiled], Iterator[str]]

    def sentences(self, compiled: Compiled) -> Iterator[str]:
        """Yield a sentence for each place at which a pipeline steps into the trap."""
        for place in self.places(compiled):
            yield f"{place}: {self.name}: {self.why}. {self.remedy}."
