"""The images as users run them: without rights, with a root that cannot be written, without a way out."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import httpx
import pytest
from kfp import local

from components import artifacts
from components.artifacts import Decision, Golden, Manifest, Metrics, Signature
from components.store.models import open_store
from components.store.settings import Store
from pipelines.compiler import arguments
from pipelines.config import load
from pipelines.images import REFERENCES
from pipelines.train_to_serve import build

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
TMP = "/tmp"  # noqa: S108 - the containers'
BUCKET = "modelyard"
EMULATOR = ("-scheme", "http", "-backend", "memory", "-external-url", "http://gcs:4443")

# Large packages, and which image holds them: what is not named here must not be there.
HOLDS = {
    "fingerprint": {"kfp", "google-cloud-storage", "scikit-learn"},
    "ingest": {"kfp", "google-cloud-storage", "numpy", "pillow", "scikit-learn"},
    "preprocess": {"kfp", "numpy"},
    "train": {"kfp", "numpy", "tensorflow_cpu", "keras", "onnx", "onnxruntime", "tf2onnx"},
    "evaluate": {"kfp", "google-cloud-storage", "numpy", "onnxruntime"},
    "deploy": {"kfp", "google-cloud-storage", "kubernetes"},
    "serve": {"google-cloud-storage", "numpy", "onnxruntime", "pillow"},
}
LARGE = set().union(*HOLDS.values()) | {"tensorflow", "jax", "jaxlib", "scipy", "pandas", "pip"}

RIGHTS = """
import os, pathlib, tempfile
for folder in ("/", "/app", "/app/components", "/venv/lib"):
    assert not os.access(folder, os.W_OK), folder
tempfile.TemporaryFile()
print(os.getuid(), os.getgid(), tempfile.gettempdir(), pathlib.Path.home())
"""

# Imports all modules of the image, and finds all that they import later, inside functions.
IMPORTS = """
import ast, importlib, importlib.metadata, importlib.util, json, pathlib
for path in pathlib.Path("/app/components").rglob("*.py"):
    if path.name in ("component.py", "__main__.py"):
        continue  # KFP takes the function out of component.py and leaves the module
    module = ".".join(path.relative_to("/app").with_suffix("").parts).removesuffix(".__init__")
    importlib.import_module(module)
    for node in ast.walk(ast.parse(path.read_text())):
        names = [name.name for name in node.names] if isinstance(node, ast.Import) else []
        names += [node.module] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            assert importlib.util.find_spec(name), f"{module} imports {name}"
print(json.dumps([each.name for each in importlib.metadata.distributions()]))
"""


@pytest.fixture(scope="module")
def images() -> dict[str, str]:
    subprocess.run(["make", "images"], check=True, cwd=REFERENCES.parent.parent)
    return json.loads(REFERENCES.read_text())


@pytest.mark.parametrize("target", HOLDS)
def test_an_image_runs_without_rights_and_writes_to_tmp_alone(images: dict[str, str], target: str) -> None:
    assert python(images[target], RIGHTS).split() == ["65532", "65532", TMP, TMP]


@pytest.mark.parametrize("target", HOLDS)
def test_an_image_holds_what_its_code_imports_and_nothing_large_beside(
    images: dict[str, str], target: str
) -> None:
    held = set(json.loads(python(images[target], IMPORTS).splitlines()[-1]))
    assert held & LARGE == HOLDS[target]


def test_the_same_bytes_in_give_the_same_layers_out(images: dict[str, str]) -> None:
    version = f"VERSION={metadata.version('modelyard')}"
    build = ("build", "--quiet", "--no-cache", "--build-arg", version, "--file", "components/Dockerfile")
    assert layers(docker(*build, "--target", "fingerprint", ".").strip()) == layers(images["fingerprint"])


def test_the_digits_are_trained_evaluated_and_served_in_the_images(
    images: dict[str, str], network: str, tmp_path: Path
) -> None:
    with started(images["gcs-emulator"], network, *EMULATOR, alias="gcs") as address:
        outside = Store(url=f"gs://{BUCKET}/models", endpoint=f"http://{address}:4443")
        answers(f"{outside.endpoint}/_internal/healthcheck")
        httpx.post(f"{outside.endpoint}/storage/v1/b", json={"name": BUCKET}).raise_for_status()
        inside = outside.model_copy(update={"endpoint": "http://gcs:4443"})

        evaluation = up_to_evaluate(images, network, inside, tmp_path)
        version = publish(outside, evaluation)
        golden = artifacts.read(evaluation / "golden.json", Golden)

        command = ["--name", "digits", "--version", str(version)]
        command += ["--store", inside.text(), "--serving", '{"host": "0.0.0.0"}']
        with started(images["serve"], network, *command) as address:
            url = f"http://{address}:8501"
            answers(f"{url}/v2/health/ready")
            body = {"instances": golden.instances}
            answer = httpx.post(f"{url}/v1/models/digits/versions/{version}:predict", json=body).json()
    for given, expected in zip(answer["predictions"], golden.predictions, strict=True):
        assert given == pytest.approx(expected, abs=golden.tolerance)


def up_to_evaluate(images: dict[str, str], network: str, store: Store, scratch: Path) -> Path:
    """Run the pipeline in the images with a gate that no model passes, and return the evaluation."""
    root = scratch / "artifacts"
    root.mkdir()
    root.chmod(0o777)  # the containers' user is nobody's here
    confined = {"network": network, "read_only": True, "tmpfs": {TMP: ""}, "cap_drop": ["ALL"]}
    local.init(local.DockerRunner(**confined), pipeline_root=str(root))
    pipeline = build(lambda step, task: task.set_container_image(images[step]))
    config = load(None, ["training.epochs=5", "gate.floor=1.0"], {}, store)
    pipeline(**arguments(config))
    (evaluation,) = root.glob("*/evaluate/evaluation")
    assert artifacts.read(evaluation / "decision.json", Decision).decision == "reject"
    return evaluation


def publish(settings: Store, evaluation: Path) -> int:
    """Publish what was evaluated, as deploy does."""
    (model,) = evaluation.parent.parent.glob("train/model")
    folders = [path for folder in (model, evaluation) for path in folder.rglob("*") if path.is_file()]
    files = {
        path.relative_to(model if path.is_relative_to(model) else evaluation).as_posix(): path
        for path in folders
    }
    store = open_store(settings)
    version = store.reserve("digits", "run")
    manifest = Manifest(
        model="digits",
        version=version,
        run="run",
        created="2026-01-01T00:00:00+00:00",
        data="data",
        code="code",
        config={},
        files={name: artifacts.sha256(path) for name, path in files.items()},
        signature=artifacts.read(model / "signature.json", Signature),
        metrics=artifacts.read(evaluation / "metrics.json", Metrics),
        decision=artifacts.read(evaluation / "decision.json", Decision),
        packages={},
    )
    store.publish("digits", version, files, manifest)
    return version


@pytest.fixture
def network() -> Iterator[str]:
    """A network of its own, from which nothing leads out."""
    name = f"modelyard-{uuid4().hex[:8]}"
    docker("network", "create", "--internal", name)
    try:
        yield name
    finally:
        docker("network", "rm", name)


@contextmanager
def started(image: str, network: str, *command: str, alias: str = "one") -> Iterator[str]:
    """Run a server's image in the background, and give its address."""
    where = ("--network", network, "--network-alias", alias)
    name = docker("run", "--detach", *CONFINED, *where, image, *command).strip()
    try:
        yield json.loads(docker("inspect", name))[0]["NetworkSettings"]["Networks"][network]["IPAddress"]
    finally:
        sys.stdout.write(docker("logs", name))
        docker("rm", "--force", name)


def answers(url: str) -> None:
    for _ in range(300):
        with suppress(httpx.TransportError):
            if httpx.get(url).is_success:
                return
        time.sleep(0.1)
    raise AssertionError(f"{url} does not answer")


def python(image: str, script: str) -> str:
    """Run a script in the image, with no network and no rights, and return what it prints."""
    return docker(
        "run", "--rm", "--network", "none", *CONFINED, "--entrypoint", "python", image, "-c", script
    )


def layers(image: str) -> list[str]:
    return json.loads(docker("image", "inspect", image))[0]["RootFS"]["Layers"]


def docker(*arguments: str) -> str:
    done = subprocess.run(
        ["docker", *arguments], capture_output=True, text=True, cwd=REFERENCES.parent.parent
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
