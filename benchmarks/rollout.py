"""Measures rollouts under load in the environment `kind`: `make bench-rollout`, after `make kind-up`.

A second version of the tutorial's CNN with random weights is promoted and rolled back repeatedly, while
clients send about 800 requests per second, half of them on new connections. Then a rollout is compared with a
bare rolling update of the same Deployment, and the latency of clients is measured with and without a canary.
"""

import argparse
import json
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from uuid import uuid4

import numpy as np
import onnxruntime
import yaml

from measure import Result, make_result, print_results
from modelyard.components import artifacts
from modelyard.components.artifacts import Golden, ImageFormat
from modelyard.components.deploy.rollout import RolloutController
from modelyard.components.deploy.verification import PinnedVersion, pin_version
from modelyard.components.kubernetes.cluster import connect
from modelyard.components.store.models import ModelStore
from modelyard.pipelines.compile.images import BUDGETS, MEGABYTE, REFERENCES
from modelyard.pipelines.serving.platforms import find_controller
from serving import write_cnn
from tests.versions import classifier_signature, publish

NAME = "bench-rollout"
REQUESTS = 100_000
ROUNDS, SECONDS = 3, 10
CLIENTS, PAUSE = 4, 8  # clients of each kind; milliseconds between two requests of a client
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Connection"] = "{connection}"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
function delay() return {pause} end
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{{"sent": %d, "p50": %f, "p99": %f, "failed": %d}}',
    summary.requests, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


@dataclass(frozen=True)
class Bench:
    """A model with two versions on a cluster."""

    controller: RolloutController
    namespace: str
    first: PinnedVersion
    second: PinnedVersion
    scratch: Path

    @contextmanager
    def load(self) -> Iterator[list[dict[str, float]]]:
        """Send requests during the block; then fill the list with the results of each kind of client."""
        service = connect(self.namespace).get("Service", NAME)
        assert service
        url = f"http://{service['spec']['clusterIP']}:8501/v1/models/{NAME}:predict"
        clients, measurements = [], []
        for connection in ("keep-alive", "close"):
            script = self.scratch / f"{connection}.lua"
            body = self.scratch / "image.json"
            script.write_text(SCRIPT.format(connection=connection, body=body, pause=PAUSE))
            command = ["wrk", "-t1", f"-c{CLIENTS}", "-d1h", "-s", str(script), url]
            clients.append(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
        yield measurements
        for client in clients:
            client.send_signal(signal.SIGINT)
            output, _ = client.communicate(timeout=60)
            measurements.append(json.loads(output.splitlines()[-1]))

    def promote(self) -> float:
        """Deploy the second version; return the seconds without the bake time."""
        started = time.perf_counter()
        outcome = self.controller.roll_out(self.second, None, "bench")
        assert outcome.decision == "promote", outcome
        return time.perf_counter() - started - self.controller.rollout.bake_seconds

    def roll_back(self) -> float:
        """Roll back to the first version; return the seconds."""
        started = time.perf_counter()
        self.controller.rollback(self.first.version, "bench")
        return time.perf_counter() - started


def publish_version(models: ModelStore, scratch: Path) -> PinnedVersion:
    """Publish a version with golden requests."""
    folder = scratch / uuid4().hex
    folder.mkdir()
    write_cnn(folder / "model.onnx")
    images = np.random.default_rng(1).integers(0, 256, (8, 32, 32, 3), np.uint8)
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    (predictions,) = session.run(None, {"input": images})
    artifacts.write(
        folder / "golden.json",
        Golden(problem="classification", instances=images.tolist(), predictions=predictions.tolist()),
    )
    (scratch / "image.json").write_text(json.dumps({"instances": images[:1].tolist()}))
    files = {path.name: path for path in folder.iterdir()}
    image = ImageFormat(height=32, width=32, channels=3, resize="stretch")
    signature = classifier_signature((32, 32, 3), "uint8", tuple("0123456789"), image)
    return pin_version(models, NAME, publish(models, NAME, files, signature))


def measure_under_load(bench: Bench) -> tuple[list[Result], list[float]]:
    """Promote and roll back until enough requests were sent; also return the seconds of the promotions."""
    sent = failed = 0
    promotions: list[float] = []
    rollbacks: list[float] = []
    while sent < REQUESTS:
        with bench.load() as measurements:
            promotions.append(bench.promote())
            rollbacks.append(bench.roll_back())
            time.sleep(8)  # until the last server of the second version has stopped
        sent += int(sum(client["sent"] for client in measurements))
        failed += int(sum(client["failed"] for client in measurements))
        print(f"{len(promotions)} promotions and rollbacks, {sent} requests, {failed} failed")
    return [
        make_result("failed requests in promotions and rollbacks, of sent", failed, sent, "requests", "0"),
        make_result(
            "rollback, compared with promotion without bake time",
            statistics.median(rollbacks),
            statistics.median(promotions),
            "s",
            "",
        ),
    ], promotions


def time_bare_update(bench: Bench) -> float:
    """Return the seconds of a bare rolling update of the stable Deployment."""
    name, namespace = f"deployment/{NAME}-stable", bench.namespace
    started = time.perf_counter()
    for verb in ("restart", "status"):
        command = ["kubectl", "rollout", verb, name, "-n", namespace]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


@contextmanager
def run_canary(bench: Bench) -> Iterator[None]:
    """Run the second version as a canary during the block."""
    canary_started = threading.Event()
    rollout = bench.controller.rollout.model_copy(update={"bake_seconds": 3600.0})
    controller = replace(
        bench.controller,
        rollout=rollout,
        log=lambda line: canary_started.set() if line.startswith("canary") else None,
    )
    thread = threading.Thread(target=controller.roll_out, args=(bench.second, None, "bench"))
    thread.start()
    assert canary_started.wait(120)
    yield
    bench.controller.abort("bench")
    thread.join()


def measure_canary_overhead(bench: Bench) -> list[Result]:
    """Measure the latency of clients with and without a canary in alternating rounds."""
    measurements: dict[str, list[dict[str, float]]] = {"canary": [], "plain": []}
    for _ in range(ROUNDS):
        for kind, state in (("plain", nullcontext()), ("canary", run_canary(bench))):
            with state, bench.load() as clients:
                time.sleep(SECONDS)
            measurements[kind] += clients
    return [
        make_result(
            f"{key} of clients with a canary, compared with none",
            *(statistics.median(client[key] for client in clients) for clients in measurements.values()),
            "ms",
            "",
        )
        for key in ("p50", "p99")
    ]


def measure_image_sizes() -> list[Result]:
    """Compare the size of each built image with its budget."""
    budgets = yaml.safe_load(BUDGETS.read_text())
    results = []
    for target, reference in json.loads(REFERENCES.read_text()).items():
        command = ["docker", "image", "inspect", "--format", "{{.Size}}", reference]
        process = subprocess.run(command, check=False, capture_output=True, text=True)
        if process.returncode == 0:
            size = int(process.stdout) / MEGABYTE
            results.append(
                make_result(f"image {target}, compared with its budget", size, budgets[target], "MB", "<= 1x")
            )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--environment", default="kind")
    environment = parser.parse_args().environment
    if not shutil.which("wrk"):
        raise SystemExit(
            "This needs wrk, an HTTP load generator: apt-get install -y wrk (or brew install wrk)."
        )
    overrides = ["rollout.bake_seconds=5.0", "rollout.min_requests=100"]
    with tempfile.TemporaryDirectory() as scratch:
        controller = find_controller(NAME, environment, "bench", overrides=overrides, log=print)
        first, second = (publish_version(controller.models, Path(scratch)) for _ in range(2))
        bench = Bench(controller, controller.platform.location, first, second, Path(scratch))
        controller.roll_out(bench.first, None, "bench")
        results, promotions = measure_under_load(bench)
        bare = statistics.median(time_bare_update(bench) for _ in range(ROUNDS))
        title = "deploy without bake time, compared with a bare rolling update"
        results.append(make_result(title, statistics.median(promotions), bare, "s", ""))
        results += measure_canary_overhead(bench)
    objects = ["deployment,service", "-l", f"app.kubernetes.io/name={NAME}", "-n", bench.namespace]
    subprocess.run(["kubectl", "delete", *objects], check=True, stdout=subprocess.DEVNULL)
    print_results("Rollouts on Kubernetes", [*results, *measure_image_sizes()])


if __name__ == "__main__":
    main()
