"""The images, run without privileges, with a read-only root and without internet."""

import json
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import httpx
import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import Decision, Golden, Metrics, Signature
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from modelyard.pipelines.compile.images import LABEL, build, build_arguments
from tests.versions import publish

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

TMP = "/tmp"  # noqa: S108 - of the containers

Run = Callable[..., Any]

# The large packages that each image has; it must have no other package in LARGE.
PACKAGES = {
    "fingerprint": {"kfp", "google-cloud-storage", "scikit-learn"},
    "ingest": {"kfp", "google-cloud-storage", "numpy", "pillow", "scikit-learn"},
    "preprocess": {"kfp", "numpy"},
    "train": {
        "kfp",
        "google-cloud-storage",
        "numpy",
        "tensorflow_cpu",
        "keras",
        "onnx",
        "onnxruntime",
        "tf2onnx",
    },
    "evaluate": {"kfp", "google-cloud-storage", "numpy", "onnxruntime"},
    "deploy": {"kfp", "google-cloud-storage", "kubernetes"},
    "serve": {"google-cloud-storage", "numpy", "onnxruntime", "pillow"},
}
LARGE = set().union(*PACKAGES.values()) | {"tensorflow", "jax", "jaxlib", "scipy", "pandas", "pip"}

RIGHTS = """
import os, pathlib, tempfile
for folder in ("/", "/app", "/app/modelyard/components", "/venv/lib"):
    assert not os.access(folder, os.W_OK), folder
tempfile.TemporaryFile()
print(os.getuid(), os.getgid(), tempfile.gettempdir(), pathlib.Path.home())
"""

# Imports all modules of the image, and finds the modules that their functions import.
IMPORTS = """
import ast, importlib, importlib.metadata, importlib.util, json, pathlib
for path in pathlib.Path("/app/modelyard/components").rglob("*.py"):
    if path.name in ("component.py", "__main__.py"):
        continue  # KFP runs the function of component.py without the module
    problem = path.parent.name == "problems"
    if problem and path.name not in ("__init__.py", "base.py"):
        continue  # only the steps that train and evaluate import the kind of problem
    module = ".".join(path.relative_to("/app").with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(module)
    if problem:
        continue  # its functions import packages that not every image has
    for node in ast.walk(ast.parse(path.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert importlib.util.find_spec(name), f"{module} imports {name}"
print(json.dumps([each.name for each in importlib.metadata.distributions()]))
"""


@pytest.mark.parametrize("target", PACKAGES)
def test_image_has_required_packages_and_writes_only_to_tmp(
    images: dict[str, str], run_in_image: Run, target: str
) -> None:
    user, *_, packages = run_in_image(images[target], RIGHTS + IMPORTS).splitlines()
    assert user.split() == ["65532", "65532", TMP, TMP]
    assert set(json.loads(packages)) & LARGE == PACKAGES[target]


def read_labels(docker: Run, image: str) -> dict[str, str]:
    """Return the OCI labels of an image without their prefix."""
    (inspected,) = json.loads(docker("image", "inspect", image))
    return {key.removeprefix(f"{LABEL}."): value for key, value in inspected["Config"]["Labels"].items()}


@pytest.mark.parametrize("target", PACKAGES)
def test_image_has_oci_labels(images: dict[str, str], docker: Run, target: str) -> None:
    labels = read_labels(docker, images[target])
    assert labels["title"] == "modelyard"
    assert labels["version"] == metadata.version("modelyard")
    assert labels["licenses"] == "Apache-2.0"
    assert labels["base.name"]
    assert labels["description"]
    assert "revision" not in labels, "the digest of an unchanged image would change with each commit"


def test_release_has_its_source_and_same_image_keeps_its_reference(
    images: dict[str, str], docker: Run
) -> None:
    release = {"source": "https://example.com/modelyard", "revision": "abc"}
    base = read_labels(docker, images["fingerprint"])["base.name"]
    try:
        image = build("gcs-emulator", base, labels=release, previous=images["gcs-emulator"])
    finally:
        rebuilt = build("gcs-emulator", base, previous=images["gcs-emulator"])
    assert rebuilt.reference == images["gcs-emulator"]
    assert image.reference.startswith("modelyard/gcs-emulator:")
    assert release.items() <= read_labels(docker, image.reference).items()


@pytest.mark.soak  # a build without its cache takes a minute or more
def test_builds_are_reproducible(images: dict[str, str], docker: Run) -> None:
    arguments = build_arguments(read_labels(docker, images["fingerprint"])["base.name"])
    build = ["build", "--quiet", "--no-cache", "--file", "components/Dockerfile", "--target", "fingerprint"]
    rebuilt = docker(*build, *(f"--build-arg={key}={value}" for key, value in arguments.items()), ".").strip()
    new, old = (
        json.loads(docker("image", "inspect", image))[0] for image in (rebuilt, images["fingerprint"])
    )
    assert new["RootFS"] == old["RootFS"]


@pytest.mark.soak  # a whole run; tests/cluster/test_pods.py has one in the same images
def test_digits_are_trained_evaluated_and_served_in_the_images(
    images: dict[str, str], run_digits: Run, stores: tuple[Store, Store], server: Run
) -> None:
    evaluation: Path = run_digits(images)
    assert artifacts.read(evaluation / "decision.json", Decision).decision == "reject"
    inside, outside = stores
    version = publish_evaluated(outside, evaluation)
    golden = artifacts.read(evaluation / "golden.json", Golden)

    command = ["--name", "digits", "--version", str(version), "--store", inside.to_json()]
    address = server(images["serve"], *command, "--serving", '{"host": "0.0.0.0"}')
    url = f"http://{address}:8501/v1/models/digits/versions/{version}:predict"
    response = httpx.post(url, json={"instances": golden.instances}).json()
    for prediction, expected in zip(response["predictions"], golden.predictions, strict=True):
        assert prediction == pytest.approx(expected, abs=1e-4)


def publish_evaluated(settings: Store, evaluation: Path) -> int:
    """Publish the evaluated model, as deploy does."""
    (model,) = evaluation.parent.parent.glob("train/model")
    paths = [path for folder in (model, evaluation) for path in folder.rglob("*") if path.is_file()]
    files = {
        path.relative_to(model if path.is_relative_to(model) else evaluation).as_posix(): path
        for path in paths
    }
    decision = artifacts.read(evaluation / "decision.json", Decision)
    metrics = artifacts.read(evaluation / "metrics.json", Metrics)
    signature = artifacts.read(model / "signature.json", Signature)
    return publish(open_store(settings), "digits", files, signature, decision=decision, metrics=metrics)
