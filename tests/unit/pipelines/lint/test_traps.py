"""Each trap of the parity list, with a small pipeline that steps into it; and ours, which steps into none."""

import pytest
from kfp import dsl

from modelyard.pipelines.compile.compiler import compile_package
from modelyard.pipelines.compile.lint.compiled import Compiled
from modelyard.pipelines.compile.lint.traps import RULES, broken
from modelyard.pipelines.environments.load import load_environment
from tests.unit.pipelines.lint.trapped import (
    TRAPS,
    ends_twice,
    goes_on_after_the_end,
    listed,
    make,
    say,
    take,
)

NEEDS_FILES = {"embedded artifact", "argument of 128 KiB"}


@pytest.mark.parametrize(("pipeline", "name"), TRAPS.items(), ids=[one.name for one in TRAPS])
def test_a_pipeline_that_steps_into_a_trap_is_told_its_name(tripped, pipeline, name):
    allowed = {name}
    if pipeline in (ends_twice, goes_on_after_the_end):
        allowed.add("ignore_upstream_failure")  # there is no other way to write these
    assert name in tripped(pipeline) <= allowed


def test_an_embedded_file_is_a_trap_and_so_is_a_large_one(tripped, tmp_path):
    (tmp_path / "small.txt").write_text("a")

    @dsl.component(
        base_image="a:0123456789abcdef",
        install_kfp_package=False,
        embedded_artifact_path=str(tmp_path / "small.txt"),
    )
    def read(file: dsl.EmbeddedInput[dsl.Dataset]) -> str:
        return file.path

    @dsl.pipeline(name="a")
    def embeds():
        read()

    assert tripped(embeds) == {"embedded artifact"}


def test_a_function_of_128_kib_is_a_trap(packaged):
    package = packaged(says_nothing_special).replace(b"return text", b"return '" + b"a" * 2**17 + b"'")
    compiled = Compiled.of(package)
    assert {rule.name for rule in RULES if list(rule.sentences(compiled))} == {"argument of 128 KiB"}


@dsl.pipeline(name="a")
def says_nothing_special(text: str = "a"):
    with dsl.ExitHandler(say(text="end")):
        first = say(text=text)
        with dsl.If(first.output != "unchanged"), dsl.ParallelFor(listed().output) as row:
            say(text=row)
        with dsl.If(first.output == 'say "hi"'):
            take(model=make().outputs["model"])


def test_the_same_without_the_traps_steps_into_none(tripped):
    assert tripped(says_nothing_special) == set()


def test_every_trap_has_a_pipeline_here():
    assert {rule.name for rule in RULES} == {*TRAPS.values(), *NEEDS_FILES}


@pytest.mark.parametrize("name", ["local", "kind", "gke"])
def test_our_pipeline_steps_into_no_trap_in_any_environment(name):
    images = "{" + ", ".join(f"{one}: a/{one}" for one in IMAGES) + "}"
    places = ["store=gs://a/models", "pipeline_root=gs://a/runs"] if name == "gke" else []
    overrides = [f"environment.{one}" for one in (f"images={images}", *places)]
    environment = load_environment(name, overrides, environ={})
    assert list(broken(Compiled.of(compile_package(environment)))) == []


IMAGES = ("fingerprint", "ingest", "preprocess", "train", "train-cuda", "evaluate", "deploy", "serve")


def test_ours_is_what_users_run():
    """The traps are sought in what `compile` writes, and this has every step in it."""
    compiled = Compiled.of(compile_package(load_environment("local", environ={})))
    steps = {task.name for task in compiled.tasks() if task.dag is None}
    assert {"fingerprint", "ingest", "preprocess", "train", "evaluate", "deploy", "explain"} == steps
