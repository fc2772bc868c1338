"""The seam: what the problems share, and that nobody else knows a problem."""

import io
import re
import tokenize
from pathlib import Path

import pytest

from modelyard.components import problems
from modelyard.components.errors import ConfigError
from modelyard.components.problems.base import Problem

ROOT = Path(problems.__file__).parents[2]
KNOWN = re.compile(r"accurac|(?<!data)(?<!sub)classes|softmax|confusion|probabilit", re.IGNORECASE)
MAY_KNOW = ("components/problems/", "components/ingest/", "components/source/settings.py")


@pytest.mark.parametrize("name", problems.PROBLEMS)
def test_each_problem_has_description_module_and_template(name: str) -> None:
    description = problems.describe(name)
    assert isinstance(problems.of(name), Problem)
    assert description.primary in description.metrics
    assert (ROOT / "components" / "report" / f"{name}.html").is_file()


def test_unknown_problem() -> None:
    with pytest.raises(ConfigError, match="regression"):
        problems.of("clustering")


def test_other_packages_do_not_depend_on_a_problem() -> None:
    found = []
    for folder in ("components", "pipelines"):
        for path in (ROOT / folder).rglob("*.py"):
            name = path.relative_to(ROOT).as_posix()
            text = path.read_text()
            if not name.startswith(MAY_KNOW) and KNOWN.search(text):
                tokens = tokenize.generate_tokens(io.StringIO(text).readline)
                found += [
                    f"{name}:{one.start[0]} {one.string}"
                    for one in tokens
                    if one.type == tokenize.NAME and KNOWN.search(one.string)
                ]
    assert found == []
