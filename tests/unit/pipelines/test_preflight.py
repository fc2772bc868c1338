"""What `submit` checks before it sends a pipeline."""

from typing import Any

import pytest

from modelyard.components.errors import ConfigError
from modelyard.pipelines.compile.compiler import create_arguments
from modelyard.pipelines.compile.preflight import check_pipeline
from modelyard.pipelines.config.config import load
from modelyard.pipelines.environments.environment import Environment
from modelyard.pipelines.steps import ACCELERATED_IMAGES, IMAGES

DIGEST = f"@sha256:{'0' * 64}"


def environment(**keys: Any) -> Environment:
    return Environment.model_validate(
        {
            "kind": "kubernetes",
            "store": "gs://bucket/models",
            "pipeline_root": "gs://bucket/runs",
            "images": {name: f"a/{name}{DIGEST}" for name in (*IMAGES, *ACCELERATED_IMAGES)},
            **keys,
        }
    )


def check(target: Environment, **changes: Any) -> tuple[str, ...]:
    """Check the digits, with changed arguments."""
    config = load(environ={}, store=target.model_store())
    return check_pipeline(create_arguments(config, target) | changes, target)


def test_digits_pass_without_notes():
    assert check(environment()) == ()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_spec": "a" * 2**17}, "the largest part in `train_spec`"),
        ({"deploy_spec": "é" * 2**16}, "the largest part in `deploy_spec`"),
    ],
)
def test_too_long_arguments_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        check(environment(), **changes)


def test_all_problems_are_listed():
    images = environment().images | {"train": "a/train"}
    with pytest.raises(ConfigError, match=r"2 errors\.\n  .*train_spec.*\n  .*a/train"):
        check(environment(images=images), train_spec="a" * 2**17)


@pytest.mark.parametrize("image", ["a/train", "a/train:latest", "localhost:5000/train"])
def test_untagged_and_latest_images_are_refused(image):
    images = environment().images | {"train": image}
    with pytest.raises(ConfigError, match=rf"image of train is {image}, .*environment\.images"):
        check(environment(images=images))


def test_tags_are_noted_except_content_hashes():
    images = environment().images | {"train": "a/train:1.2"}
    (note,) = check(environment(images=images))
    assert note.startswith("The images of train have a tag")
    assert check(environment(images=images | {"train": "a/train:0123456789abcdef"})) == ()


def test_an_emulator_on_this_machine_is_refused():
    with pytest.raises(ConfigError, match=r"http://127\.0\.0\.1:4443.* storage_endpoint_outside"):
        check(environment(storage_endpoint="http://127.0.0.1:4443"))


def test_a_timeout_beyond_the_deadline_is_noted():
    (note,) = check(environment(active_deadline=100, steps={"train": {"timeout": 200}}))
    assert "train may take 200 s" in note
    assert "environment.active_deadline" in note


def test_retries_are_noted_with_the_setting_of_the_controller():
    (note,) = check(environment(steps={"train": {"retries": 2}, "ingest": {"retries": 1}}))
    assert note.startswith("ingest, train have retries")
    assert "workflow-controller-configmap" in note
