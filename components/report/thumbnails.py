"""Examples in the report: images as small PNGs in data URIs, others as their first values."""

import base64
import math
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_SIDE = 96
"""Maximum width and height in pixels. Twelve thumbnails take at most 450 kB, usually less than 100 kB."""
MIN_SIDE, MAX_ASPECT_RATIO = 4, 16
MAX_VALUES = 10


def encode_data_uri(example: NDArray[Any], low: float, high: float) -> str:
    """Return an example as a PNG in a data URI; an empty string if it is not an image.

    `low` is black and `high` is white. The shape of an image is (height, width), (height, width, 1) or
    (height, width, 3).
    """
    pixels = example[..., None] if example.ndim == 2 else example
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
        return ""
    height, width, channels = pixels.shape
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_ASPECT_RATIO * min(height, width):
        return ""
    block = math.ceil(max(height, width) / MAX_SIDE)
    height, width = height // block, width // block
    blocks = pixels[: height * block, : width * block].reshape(height, block, width, block, channels)
    fractions = (blocks.mean(axis=(1, 3)) - low) / max(high - low, 1e-12)
    png = _encode_png((fractions.clip(0, 1) * 255).round())
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"


def format_values(example: NDArray[Any]) -> str:
    """Return the first values of an example with one axis; an empty string for other examples."""
    if example.ndim != 1:
        return ""
    suffix = ", …" if len(example) > MAX_VALUES else ""
    return ", ".join(f"{value:.4g}" for value in example[:MAX_VALUES].tolist()) + suffix


def _encode_png(pixels: NDArray[Any]) -> bytes:
    """Return pixels from 0 to 255, with shape (height, width, 1 or 3), as a PNG file without filters."""
    height, width, channels = pixels.shape
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = pixels.reshape(height, -1)
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in chunks
    )
