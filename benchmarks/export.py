"""Compares the export of MobileNetV2 to ONNX with plain tf2onnx: `make bench-export`.

Both run alternately in separate processes. The memory is the peak of the process; about 90 % of it is used by
TensorFlow and the model.
"""

import json
import resource
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from measure import make_paired_result, print_results, run_command

ROUNDS = 5
SHAPE, CLASSES = (96, 96, 3), 10


def export(contender: str) -> tuple[float, float]:
    """Export in this process and return the seconds and the peak memory in MiB."""
    from modelyard.components.train.backend import keras, tf

    model = keras.applications.MobileNetV2(SHAPE, weights=None, classes=CLASSES)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        start = time.perf_counter()
        if contender == "modelyard":
            from modelyard.components.train import onnx_export

            onnx_export.convert(model, "input", "output", path)
        else:
            import tf2onnx

            spec = tf.TensorSpec((None, *SHAPE), "float32", name="input")
            tf2onnx.convert.from_keras(model, (spec,), opset=18, output_path=str(path))
        seconds = time.perf_counter() - start
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run both exports alternately and print the table."""
    measured: dict[str, list[Any]] = {"modelyard": [], "tf2onnx": []}
    for _ in range(ROUNDS):
        for contender, results in measured.items():
            results.append(json.loads(run_command([sys.executable, __file__, contender]).splitlines()[-1]))
    exported, plain = (list(zip(*results, strict=True)) for results in measured.values())
    print_results(
        "export of MobileNetV2 to ONNX, compared with tf2onnx.convert.from_keras",
        [
            make_paired_result("time", exported[0], plain[0], "s", "<= 2 s"),
            make_paired_result("peak memory", exported[1], plain[1], "MiB", "<= 700 MiB"),
        ],
    )


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps(export(sys.argv[1])))
    else:
        main()
