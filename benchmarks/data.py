"""Compares ingest and preprocess with SHA-256, and JPEG decoding with a Pillow loop: `make bench-data`.

The data is 400,000 images of 32 x 32 x 3 in an .npz file of 1.2 GB; the first argument changes the number.
Each step runs in a separate process, alternating with SHA-256 of the bytes that it reads. Its peak memory is
compared with that for half of the images. A ratio is the median of the ratios of the rounds.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from measure import Result, make_paired_result, make_result, print_results, run_command, run_interleaved
from modelyard.components import artifacts
from modelyard.components.ingest.spec import IngestSpec
from modelyard.components.preprocess.settings import Preparation
from modelyard.components.preprocess.spec import PreprocessSpec
from modelyard.components.source.settings import Resize, Source

IMAGES, ROUNDS = 400_000, 3
SHAPE, CLASSES = (32, 32, 3), 10
PHOTOS, PHOTO_SIZE, SIDE = 600, (500, 375), 224
STEP = """
import sys, time
from modelyard.components.{step}.{module} import {step}
from modelyard.components.{step}.spec import {spec}
arguments = [{spec}.from_json(text) if text.startswith("{{") else text for text in sys.argv[1:]]
started = time.perf_counter()
{step}(*arguments)
seconds = time.perf_counter() - started
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(seconds, int(peak) / 1024)
"""
INGEST = STEP.format(step="ingest", module="dataset", spec="IngestSpec")
PREPROCESS = STEP.format(step="preprocess", module="features", spec="PreprocessSpec")
READER = """
import sys, time
from pathlib import Path
from modelyard.components.ingest.image_files import read
from modelyard.components.source.settings import Source
source = Source.from_json(sys.argv[1])
started = time.perf_counter()
images = sum(len(batch) for _, batch, *_ in read(Path(source.source), source).batches)
print(images / (time.perf_counter() - started))
"""
LOOP = """
import sys, time
from pathlib import Path
import numpy as np
from PIL import Image
started = time.perf_counter()
images = 0
for path in sorted(Path(sys.argv[1]).rglob("*.jpg")):
    with Image.open(path) as image:
        size = (int(sys.argv[2]),) * 2
        images += len(np.asarray(image.convert("RGB").resize(size, Image.Resampling.BILINEAR))[None])
print(images / (time.perf_counter() - started))
"""


def measure_steps(scratch: Path, images: int) -> list[Result]:
    """Compare the speed of the steps with SHA-256, and their memory with that for half of the images."""
    peaks: dict[tuple[str, int], float] = {}

    def ingest(number: int) -> float:
        source = scratch / f"{number}.npz"
        spec = IngestSpec(source=Source(kind="npz", source=str(source))).to_json()
        return run_step("ingest", number, INGEST, source, spec, "", scratch / "raw")

    def preprocess(number: int) -> float:
        spec = PreprocessSpec(preparation=Preparation()).to_json()
        return run_step(
            "preprocess", number, PREPROCESS, scratch / "raw", scratch / "raw", spec, scratch / "features"
        )

    def run_step(step: str, number: int, program: str, source: Path, *arguments: object) -> float:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        seconds, peak = map(float, run_command(command).split()[-2:])  # after the log
        peaks[step, number] = max(peak, peaks.get((step, number), 0))
        return megabytes(source) / seconds

    for number in (images // 2, images):
        write_dataset(scratch / f"{number}.npz", number)
    ingest(images // 2)
    preprocess(images // 2)
    speeds = run_interleaved(
        ROUNDS,
        {
            "sha256 of the source": lambda: hash_speed(scratch / f"{images}.npz"),
            "ingest": lambda: ingest(images),
            "sha256 of raw": lambda: hash_speed(scratch / "raw"),
            "preprocess": lambda: preprocess(images),
        },
    )
    return [
        make_paired_result(
            "ingest, compared with SHA-256",
            speeds["ingest"],
            speeds["sha256 of the source"],
            "MB/s",
            ">= 0.6x",
        ),
        make_paired_result(
            "preprocess, compared with SHA-256",
            speeds["preprocess"],
            speeds["sha256 of raw"],
            "MB/s",
            ">= 0.6x",
        ),
        *(
            make_result(
                f"peak memory of {step}, compared with half of the images",
                peaks[step, images],
                peaks[step, images // 2],
                "MB",
                "flat",
            )
            for step in ("ingest", "preprocess")
        ),
    ]


def write_dataset(path: Path, images: int) -> None:
    """Write random images in ten classes."""
    random = np.random.default_rng(0)
    np.savez(path, x=random.integers(0, 256, (images, *SHAPE), np.uint8), y=np.arange(images) % CLASSES)


def megabytes(path: Path) -> float:
    """Return the size of a file, or of the files in a folder, in MB."""
    return sum(file.stat().st_size for file in ([path] if path.is_file() else path.iterdir())) / 1e6


def hash_speed(path: Path) -> float:
    """Return the speed of SHA-256 for a file, or the files in a folder, in MB/s."""
    started = time.perf_counter()
    for file in [path] if path.is_file() else path.iterdir():
        artifacts.sha256(file)
    return megabytes(path) / (time.perf_counter() - started)


def measure_photos(scratch: Path) -> Result:
    """Compare the speed of decoding and resizing JPEG files with a Pillow loop."""
    folder, random = scratch / "photos", np.random.default_rng(0)
    for number in range(PHOTOS):
        path = folder / f"class {number % 2}" / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (40, 50, 3), np.uint8))
        coarse.resize(PHOTO_SIZE, Image.Resampling.BICUBIC).save(path, quality=85)
    resize = Resize(height=SIDE, width=SIDE)
    source = Source(kind="images", source=str(folder), resize=resize).to_json()
    speeds = run_interleaved(
        ROUNDS,
        {
            "modelyard": lambda: float(run_command([sys.executable, "-c", READER, source])),
            "loop": lambda: float(run_command([sys.executable, "-c", LOOP, str(folder), str(SIDE)])),
        },
    )
    return make_paired_result(
        "JPEG files, compared with a loop with Pillow",
        speeds["modelyard"],
        speeds["loop"],
        "images/s",
        ">= 1.5x",
    )


def main() -> None:
    """Measure everything and print it."""
    images = int(sys.argv[1]) if len(sys.argv) > 1 else IMAGES
    with tempfile.TemporaryDirectory() as folder:
        print_results(
            f"data, {images:,} images", [*measure_steps(Path(folder), images), measure_photos(Path(folder))]
        )


if __name__ == "__main__":
    main()
