"""The images of train for NVIDIA GPUs and TPUs, on a machine without them.

The images are large: `make soak` builds and runs them, with REGISTRY as for `make test-cluster`.
"""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from modelyard.components import artifacts
from modelyard.components.artifacts import History, Metrics
from modelyard.components.errors import TrainError

pytestmark = [pytest.mark.soak, pytest.mark.timeout(3600)]

ROOT = Path(__file__).parents[3]
Run = Callable[..., Any]

DEVICES = """
import os
os.environ.update({environment})
from modelyard.components.train.backend import list_devices
print(list_devices())
"""

ENVIRONMENT = """
kind: kubernetes
store: gs://modelyard/{prefix}/models
pipeline_root: gs://modelyard/{prefix}/runs
storage_endpoint: http://gcs.modelyard-storage:4443
storage_endpoint_outside: http://127.0.0.1:30443
start_timeout: 600
accelerator_optional: {optional}
defaults: {{cpu: 100m, memory: 1Gi}}
steps: {{train: {{memory: 4Gi, accelerator: {{type: gpu}}}}}}
"""


@pytest.fixture(scope="module")
def accelerators() -> dict[str, str]:
    """The references of all images, including those for accelerators."""
    subprocess.run(["make", "images", "images-accelerators"], check=True, cwd=ROOT)
    return json.loads((ROOT / "build/images.json").read_text())


@pytest.mark.parametrize(
    ("target", "accelerator", "backend"), [("train-cuda", "gpu", "tensorflow"), ("train-tpu", "tpu", "jax")]
)
def test_missing_accelerator_is_an_error(
    accelerators: dict[str, str], run_in_image: Run, target: str, accelerator: str, backend: str
) -> None:
    script = DEVICES.format(environment={"MODELYARD_ACCELERATOR": accelerator})
    message = f"requires a {accelerator.upper()}, but Keras on {backend} finds only cpu:0"
    with pytest.raises(AssertionError, match=message):
        run_in_image(accelerators[target], script)


def test_jax_trains_the_digits_to_the_same_files(accelerators: dict[str, str], run_digits: Run) -> None:
    evaluation: Path = run_digits({**accelerators, "train": accelerators["train-tpu"]})
    trained = evaluation.parent.parent / "train"
    assert "jax" in artifacts.read(trained / "history/history.json", History).packages
    assert {path.name for path in (trained / "model").iterdir()} >= {
        "model.keras",
        "model.onnx",
        "saved_model",
    }
    assert artifacts.read(evaluation / "metrics.json", Metrics).primary_metric.value > 0.8


@pytest.fixture
def _missing_gpu(kubectl: Run) -> Iterator[None]:
    """Add a GPU to the capacity of a node that has none."""
    node = kubectl("get", "nodes", "-o", "name").split()[0]
    patch = ("patch", node, "--subresource=status", "--type=json", "-p")
    path = "/status/capacity/nvidia.com~1gpu"
    kubectl(*patch, json.dumps([{"op": "add", "path": path, "value": "1"}]))
    yield
    kubectl(*patch, json.dumps([{"op": "remove", "path": path}]))


@pytest.mark.skipif("KUBECONFIG" not in os.environ, reason="NOT RUN: KUBECONFIG names no cluster")
@pytest.mark.usefixtures("_missing_gpu")
@pytest.mark.parametrize("optional", [False, True])
def test_pod_without_the_gpu_of_its_node_fails_or_trains_on_cpu(
    accelerators: dict[str, str], modelyard: Run, tmp_path: Path, optional: bool
) -> None:
    environment = tmp_path / "missing-gpu.yaml"
    text = ENVIRONMENT.format(prefix=uuid4().hex[:8], optional=json.dumps(optional))
    images = {name: reference for name, reference in accelerators.items() if name != "gcs-emulator"}
    environment.write_text(f"{text}images: {json.dumps(images)}\n")
    quick = ("--set", "training.epochs=2", "--set", "gate.minimum.accuracy=1.0", "--output", "json")
    result = modelyard("run", "-e", environment, *quick)
    if optional:
        assert result.code == 0, result.err
        assert result.json["decision"] == "reject"
        (log,) = Path(result.json["report"]).parent.glob("logs/train.log")
        assert "training on cpu:0 with tensorflow" in log.read_text()
    else:
        assert result.code == TrainError.exit_code
        assert "requires a GPU, but Keras on tensorflow finds only cpu:0" in result.json["failure"]["message"]
