"""The registry of problems, and its independence: other packages do not depend on a problem."""

import io
import re
import tokenize
from pathlib import Path

import pytest

from modelyard.components import problems
from modelyard.components.errors import ConfigError
from modelyard.components.problems.base import Problem

ROOT = Path(problems.__file__).parents[2]
PROBLEM_WORDS = re.compile(
    r"accurac|(?<!data)(?<!sub)(?<!error_)(?<!keras_)classes|softmax|confusion|probabilit", re.IGNORECASE
)
ALLOWED = ("components/problems/", "components/ingest/", "components/source/settings.py")


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_each_problem_has_description_module_and_template(name: str) -> None:
    description = problems.get_description(name)
    assert isinstance(problems.get_problem(name), Problem)
    assert description.primary in description.metrics
    assert (ROOT / "components" / "report" / f"{name}.html").is_file()


def test_an_unknown_problem_is_an_error() -> None:
    with pytest.raises(ConfigError, match="regression"):
        problems.get_problem("clustering")


def test_other_packages_do_not_depend_on_a_problem() -> None:
    identifiers = []
    for folder in ("components", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text()
            if not name.startswith(ALLOWED) and PROBLEM_WORDS.search(text):
                tokens = tokenize.generate_tokens(io.StringIO(text).readline)
                identifiers += [
                    f"{name}:{token.start[0]} {token.string}"
                    for token in tokens
                    if token.type == tokenize.NAME and PROBLEM_WORDS.search(token.string)
                ]
    assert identifiers == []
