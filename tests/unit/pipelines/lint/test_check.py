"""What is checked before a pipeline is sent."""

from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import arguments, compile_package
from modelyard.pipelines.compile.lint import retries
from modelyard.pipelines.compile.lint.check import check
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment

DIGEST = f"@sha256:{'0' * 64}"
IMAGES = ("fingerprint", "ingest", "preprocess", "train", "train-cuda", "evaluate", "deploy", "serve")
KFP = {"endpoint": "http://127.0.0.1:1"}
SHIPPED = "spec:\n  templateDefaults:\n    retryStrategy: {limit: '2', retryPolicy: OnError}\n"


def environment(**keys: Any) -> Environment:
    return Environment.model_validate(
        {
            "kind": "kubernetes",
            "store": "gs://bucket/models",
            "pipeline_root": "gs://bucket/runs",
            "images": {name: f"a/{name}{DIGEST}" for name in IMAGES},
            "kfp": KFP,
            **keys,
        }
    )


def checked(place: Environment, change: Any = lambda package: package, **given: Any) -> tuple[str, ...]:
    """Check the digits, with a changed package or changed arguments."""
    config = load(environ={}, store=place.model_store())
    values = {key: value for key, value in (arguments(config, place) | given).items() if value is not None}
    return check(change(compile_package(place)), values, place)


def test_the_digits_can_be_sent_and_there_is_nothing_to_know():
    assert checked(environment()) == ()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"nonsense": "a"}, "no parameter nonsense"),
        ({"recipe": None}, "parameter recipe of the pipeline is not given"),
        ({"name": 7}, "parameter name is 7 and must be text"),
        ({"skip_unchanged": "yes"}, "parameter skip_unchanged is 'yes' and must be true or false"),
        ({"force_after": True}, "parameter force_after is True and must be a whole number"),
        ({"architecture": "a" * 2**17}, r"131,\d\d\d|13\d,\d\d\d bytes, most of them in `architecture`"),
        ({"config": "é" * 2**16}, "most of them in `config`"),
    ],
)
def test_arguments_that_the_backend_or_linux_would_refuse(given, said):
    with pytest.raises(ConfigError, match=said):
        checked(environment(), **given)


def test_every_problem_is_named():
    with pytest.raises(ConfigError, match=r"has 2 problems\.\n  .*nonsense.*\n  .*recipe"):
        checked(environment(), nonsense="a", recipe=None)


@pytest.mark.parametrize("image", ["a/train", "a/train:latest", "localhost:5000/train"])
def test_an_image_that_is_another_one_tomorrow_is_refused(image):
    place = environment()
    place = place.model_copy(update={"images": {**place.images, "train": image}})
    with pytest.raises(ConfigError, match=rf"image of train is {image}, .*\(environment.images\)"):
        checked(place)


def test_a_tag_that_may_be_moved_is_said_and_one_made_of_the_content_is_not():
    images = {name: f"a/{name}{DIGEST}" for name in IMAGES} | {"train": "a/train:1.2"}
    (note,) = checked(environment(images=images))
    assert note.startswith("The images of train are named by a tag")
    assert checked(environment(images=images | {"train": "a/train:0123456789abcdef"})) == ()


def test_a_pipeline_without_a_deadline_is_refused():
    def endless(package: bytes) -> bytes:
        assert b"activeDeadlineSeconds: 86400" in package
        return package.replace(b"activeDeadlineSeconds: 86400", b"ttlSecondsAfterFinished: 3")

    with pytest.raises(ConfigError, match=r"no deadline.* environment.active_deadline"):
        checked(environment(), endless)


def test_an_accelerator_by_another_clouds_name_is_refused():
    place = environment(steps={"train": {"accelerator": {"type": "nvidia-l4"}}})
    assert checked(place) == ()
    with pytest.raises(ConfigError, match="accelerator of train is 'NVIDIA_L4'"):
        checked(place, lambda package: package.replace(b"nvidia.com/gpu", b"NVIDIA_L4"))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            b"name: train-to-serve",
            b"name: train-to-serve-and-more-than-a-label-may-hold",
            "'train-to-serve-",
        ),
        (b"schemaVersion: 2.1.0", b"schemaVersion: 2.2.0", "schema version '2.2.0'"),
        (b"enableCache: true", b"enableCache: false", None),
        (b"cachingOptions: {}", b"cachingOptions: {enableCache: true}", "that must run every time"),
    ],
)
def test_a_package_is_read_as_the_backend_reads_it(old, new, said):
    def changed(package: bytes) -> bytes:
        assert old in package
        return package.replace(old, new)

    if said is None:
        assert checked(environment(), changed) == ()
    else:
        with pytest.raises(ConfigError, match=said):
            checked(environment(), changed)


def test_a_pipeline_too_large_for_a_workflow_is_refused():
    with pytest.raises(ConfigError, match="a workflow holds at most"):
        checked(environment(), lambda package: package + b"# " + b"a" * 700_000 + b"\n")


def test_a_pod_does_not_reach_this_machine():
    with pytest.raises(ConfigError, match="where a pod reaches itself"):
        checked(environment(storage_endpoint="http://127.0.0.1:4443"))


def test_a_step_that_may_take_longer_than_the_run_is_said():
    notes = checked(environment(active_deadline=100, steps={"train": {"timeout": 200}}))
    assert notes == (
        "train may take 200 s, and the whole run is stopped after 100 s (environment.active_deadline).",
    )


def test_retries_that_nobody_gives_are_said():
    (note,) = checked(environment(steps={"train": {"retries": 2}}))
    assert note.startswith("train asks for retries, and it could not be seen whether")
    assert "limit: '0', retryPolicy: Always" in note


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        ({"limit": "0", "retryPolicy": "Always"}, None),
        ({"limit": "2", "retryPolicy": "OnError"}, "tries no failed step again"),
        ({"limit": "2", "retryPolicy": "Always"}, "every other step again here, too, 2 times"),
        ({"retryPolicy": "OnFailure"}, "a pod that is lost is not replaced"),
        (None, "a pod that is lost is not replaced"),
    ],
)
def test_what_the_controllers_defaults_make_of_retries(strategy, said):
    verdict = retries.verdict(strategy)
    assert verdict is None if said is None else said in verdict


def test_the_defaults_are_read_as_they_are_shipped():
    assert retries.strategy_of({"data": {"workflowDefaults": SHIPPED}}) == {
        "limit": "2",
        "retryPolicy": "OnError",
    }
    assert retries.strategy_of({"data": {}}) is None
