"""A bare KFP pipeline with six steps in kfp.local, with its cache: the baseline of a rerun."""

import contextlib
import io
import sys
import warnings

warnings.simplefilter("ignore")

from kfp import dsl, local


@dsl.component(base_image="python:3.11-slim", install_kfp_package=False)
def step(after: str) -> str:
    """Return the string."""
    return after


@dsl.pipeline(name="bare")
def bare() -> None:
    """Run six steps one after the other."""
    result = step(after="start")
    for _ in range(5):
        result = step(after=result.output)


folder = sys.argv[1]
local.init(
    local.SubprocessRunner(use_venv=False),
    pipeline_root=f"{folder}/root",
    enable_caching=True,
    cache_root=f"{folder}/cache",
)
with contextlib.redirect_stdout(io.StringIO()):
    bare()
