"""Compares the server with a bare handler and FastAPI: `make bench-serving`.

The servers have the tutorial's CNN (Conv32-pool-Conv64-pool-Dense64-Dense10 on 32x32x3, pixels / 255 inside)
with random weights. wrk sends one image as JSON per request with 8 clients; server and load have one core
each. The rounds of the three servers alternate. The server of modelyard has a store, checks, limits and
metrics, and follows the champion pointer.
"""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from measure import Result, make_result, print_results
from modelyard.components.artifacts import ImageFormat
from modelyard.components.store.models import open_store
from modelyard.components.store.settings import Store
from tests.versions import classifier_signature, publish

HERE = Path(__file__).parent
NAME = "tutorial"
ROUNDS, SECONDS, STARTS = 5, 3, 3
CLIENTS = 8
SCRIPT = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local file = io.open("{body}", "rb")
wrk.body = file:read("*a")
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('{{"requests_per_second": %f, "p50": %f, "p99": %f, "errors": %d}}',
    summary.requests / summary.duration * 1e6, latency:percentile(50) / 1000, latency:percentile(99) / 1000,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def write_cnn(path: Path) -> None:
    """Write the tutorial's CNN with random weights."""
    random = np.random.default_rng(0)
    sizes = {"k1": (32, 3, 3, 3), "k2": (64, 32, 3, 3), "d1": (64 * 6 * 6, 64), "d2": (64, 10)}
    weights = {name: random.normal(0, 0.05, size).astype(np.float32) for name, size in sizes.items()}
    weights |= {
        f"b_{name}": np.zeros(size[0] if name[0] == "k" else size[1], np.float32)
        for name, size in sizes.items()
    }
    weights["scale"] = np.float32(255)
    node = helper.make_node
    nodes = [
        node("Cast", ["input"], ["floats"], to=TensorProto.FLOAT),
        node("Div", ["floats", "scale"], ["scaled"]),
        node("Transpose", ["scaled"], ["channels"], perm=[0, 3, 1, 2]),
        node("Conv", ["channels", "k1", "b_k1"], ["c1"]),
        node("Relu", ["c1"], ["r1"]),
        node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", ["p1", "k2", "b_k2"], ["c2"]),
        node("Relu", ["c2"], ["r2"]),
        node("MaxPool", ["r2"], ["p2"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["p2"], ["flat"]),
        node("Gemm", ["flat", "d1", "b_d1"], ["g1"]),
        node("Relu", ["g1"], ["r3"]),
        node("Gemm", ["r3", "d2", "b_d2"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=-1),
    ]
    graph = helper.make_graph(
        nodes,
        NAME,
        [helper.make_tensor_value_info("input", TensorProto.UINT8, ["n", 32, 32, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


def publish_champion(model: Path, store: Store) -> None:
    """Make `model` the champion of a store."""
    models = open_store(store)
    image = ImageFormat(height=32, width=32, channels=3, resize="stretch")
    signature = classifier_signature((32, 32, 3), "uint8", tuple("0123456789"), image)
    version = publish(models, NAME, {"model.onnx": model}, signature)
    models.promote(NAME, version, reason="bench", by="bench")


def server_commands(model: Path, store: Store) -> dict[str, list[str]]:
    """Return the command line of each server; `{port}` stands for its port."""
    command = ["-m", "modelyard.components.serve", "--name", NAME, "--store", store.to_json()]
    return {
        "modelyard": [*command, "--serving", '{"port": {port}}'],
        "bare": [str(HERE / "bare_server.py"), str(model), "{port}"],
        "fastapi": [str(HERE / "fastapi_server.py"), str(model), "{port}"],
    }


@contextmanager
def start_server(command: Sequence[str], body: Path) -> Iterator[tuple[int, str, float]]:
    """Start a server on core 0; yield its process id, its URL, and the seconds to its first response."""
    with socket.socket() as unused_port:
        unused_port.bind(("127.0.0.1", 0))
        port = unused_port.getsockname()[1]
    command = ["taskset", "-c", "0", sys.executable, *(word.replace("{port}", str(port)) for word in command)]
    started = time.perf_counter()
    log = body.with_name(f"{port}.log")
    with log.open("wb") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=stderr)
    url = f"http://127.0.0.1:{port}/v1/models/{NAME}:predict"
    try:
        ready = wait_for_response(url, body.read_bytes(), process)
        if ready is None:
            raise SystemExit(f"The server exited: {log.read_text()}")
        yield process.pid, url, ready - started
    finally:
        process.terminate()
        process.wait(30)


def wait_for_response(url: str, body: bytes, process: subprocess.Popen[bytes]) -> float | None:
    """Return the time of the first response; None if the server exited before."""
    with httpx.Client(headers={"content-type": "application/json"}) as client:
        while process.poll() is None:
            try:
                client.post(url, content=body).raise_for_status()
                return time.perf_counter()
            except httpx.TransportError:
                time.sleep(0.005)
    return None


def run_wrk(url: str, script: Path, seconds: int) -> dict[str, float]:
    """Run wrk on core 1 against a server; return its results."""
    command = ["taskset", "-c", "1", "wrk", "-t1", f"-c{CLIENTS}", f"-d{seconds}s", "-s", script, url]
    process = subprocess.run(command, check=True, capture_output=True, text=True)
    measurements: dict[str, float] = json.loads(process.stdout.splitlines()[-1])
    assert not measurements["errors"], f"{url}: {measurements}"
    return measurements


def read_pss(process: int) -> float:
    """Return the proportional set size (PSS) of a process in MiB."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024


def measure(scratch: Path) -> dict[str, dict[str, float]]:
    """Return the medians of each server."""
    model, body, script = scratch / "cnn.onnx", scratch / "image.json", scratch / "post.lua"
    write_cnn(model)
    image = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3))
    body.write_text(json.dumps({"instances": image.tolist()}, separators=(",", ":")))
    script.write_text(SCRIPT.format(body=body))
    store = Store(url=str(scratch / "store"))
    publish_champion(model, store)
    commands = server_commands(model, store)
    measurements: dict[str, dict[str, list[float]]] = {name: {} for name in commands}
    for _ in range(STARTS):
        for name, command in commands.items():
            with start_server(command, body) as (_, _, seconds):
                measurements[name].setdefault("ready", []).append(seconds)
    with ExitStack() as stack:
        servers = {
            name: stack.enter_context(start_server(command, body)) for name, command in commands.items()
        }
        for number in range(1 + ROUNDS):  # round 0 is a warm-up
            for name, (_, url, _) in servers.items():
                for key, value in run_wrk(url, script, SECONDS if number else 1).items():
                    measurements[name].setdefault(key, []).extend([value] if number else [])
        for name, (process, _, _) in servers.items():
            measurements[name]["memory"] = [read_pss(process)]
    return {
        name: {key: statistics.median(values) for key, values in kinds.items()}
        for name, kinds in measurements.items()
    }


def compare(measurements: dict[str, dict[str, float]]) -> list[Result]:
    """Compare the server of modelyard with each of the other servers."""
    measures = [
        ("requests_per_second", "requests/s", {"bare": ">= 0.88x", "fastapi": ">= 8x"}),
        ("p50", "ms", {}),
        ("p99", "ms", {}),
        ("memory", "MiB", {"bare": "<= 60 MiB"}),
        ("ready", "s", {"bare": "<= 0.3 s"}),
    ]
    titles = {"requests_per_second": "served", "memory": "memory (PSS)", "ready": "start to first response"}
    return [
        make_result(
            f"{titles.get(key, key)}, compared with {other}",
            measurements["modelyard"][key],
            measurements[other][key],
            unit,
            goals.get(other, ""),
        )
        for other in ("bare", "fastapi")
        for key, unit, goals in measures
    ]


def main() -> None:
    if not shutil.which("wrk"):
        raise SystemExit(
            "This needs wrk, an HTTP load generator: apt-get install -y wrk (or brew install wrk)."
        )
    if len(os.sched_getaffinity(0)) < 2:
        raise SystemExit("This needs two cores: one for the server and one for the load.")
    os.sched_setaffinity(0, {1})  # core 0 is for the server
    with tempfile.TemporaryDirectory() as scratch:
        print_results("Serving one 32x32x3 image as JSON, 8 clients", compare(measure(Path(scratch))))


if __name__ == "__main__":
    main()
