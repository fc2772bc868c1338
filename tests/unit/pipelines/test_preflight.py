"""What `submit` checks before it sends a pipeline."""

from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import arguments, compile_package
from modelyard.pipelines.compile.preflight import check
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.steps import ACCELERATED, IMAGES

DIGEST = f"@sha256:{'0' * 64}"


def environment(**keys: Any) -> Environment:
    return Environment.model_validate(
        {
            "kind": "kubernetes",
            "store": "gs://bucket/models",
            "pipeline_root": "gs://bucket/runs",
            "images": {name: f"a/{name}{DIGEST}" for name in (*IMAGES, *ACCELERATED)},
            **keys,
        }
    )


def checked(target: Environment, change: Any = lambda package: package, **given: Any) -> tuple[str, ...]:
    """Check the digits, with a changed package or changed arguments."""
    config = load(environ={}, store=target.model_store())
    values = {key: value for key, value in (arguments(config, target) | given).items() if value is not None}
    return check(change(compile_package(target)), values, target)


def test_digits_pass_without_notes():
    assert checked(environment()) == ()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"nonsense": "a"}, "no parameter nonsense"),
        ({"train_spec": None}, "parameter train_spec has no value"),
        ({"train_spec": 7}, "parameter train_spec is 7 and must be text"),
        ({"skip_unchanged": "yes"}, "parameter skip_unchanged is 'yes' and must be true or false"),
        ({"force_after": True}, "parameter force_after is True and must be an integer"),
        ({"train_spec": "a" * 2**17}, "most of them in `train_spec`"),
        ({"deploy_spec": "é" * 2**16}, "most of them in `deploy_spec`"),
    ],
)
def test_arguments_that_the_backend_or_linux_would_refuse(given, message):
    with pytest.raises(ConfigError, match=message):
        checked(environment(), **given)


def test_every_problem_is_named():
    with pytest.raises(ConfigError, match=r"2 problems\.\n  .*nonsense.*\n  .*train_spec"):
        checked(environment(), nonsense="a", train_spec=None)


@pytest.mark.parametrize("image", ["a/train", "a/train:latest", "localhost:5000/train"])
def test_untagged_and_latest_images_are_refused(image):
    images = environment().images | {"train": image}
    with pytest.raises(ConfigError, match=rf"image of train is {image}, .*environment\.images"):
        checked(environment(images=images))


def test_a_tag_is_noted_unless_it_is_made_of_the_content():
    images = environment().images | {"train": "a/train:1.2"}
    (note,) = checked(environment(images=images))
    assert note.startswith("The images of train are")
    assert checked(environment(images=images | {"train": "a/train:0123456789abcdef"})) == ()


def test_a_pipeline_without_a_deadline_is_refused():
    def endless(package: bytes) -> bytes:
        assert b"activeDeadlineSeconds: 86400" in package
        return package.replace(b"activeDeadlineSeconds: 86400", b"ttlSecondsAfterFinished: 3")

    with pytest.raises(ConfigError, match=r"environment\.active_deadline"):
        checked(environment(), endless)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"import kfp\\n", b"import kfp\\n" + b"#" * 2**17 + b"\\n", "The source of the step .* has 13"),
        (b"sdkVersion", b"# " + b"a" * 700_000 + b"\nsdkVersion", "a workflow can have"),
    ],
    ids=["step", "workflow"],
)
def test_a_pipeline_that_is_too_large_is_refused(old, new, message):
    def enlarged(package: bytes) -> bytes:
        assert old in package
        return package.replace(old, new, 1)

    with pytest.raises(ConfigError, match=message):
        checked(environment(), enlarged)


def test_an_emulator_on_this_machine_is_refused():
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:4443.* storage_endpoint_outside"):
        checked(environment(storage_endpoint="http://127.0.0.1:4443"))


def test_a_timeout_beyond_the_deadline_is_noted():
    (note,) = checked(environment(active_deadline=100, steps={"train": {"timeout": 200}}))
    assert "train may take 200 s" in note
    assert "environment.active_deadline" in note


def test_retries_are_noted_with_the_setting_of_the_controller():
    (note,) = checked(environment(steps={"train": {"retries": 2}, "ingest": {"retries": 1}}))
    assert note.startswith("ingest, train ask for retries")
    assert "workflow-controller-configmap" in note
