"""Small image files; some of them need much memory or time to decode."""

import io
import struct
import zlib
from typing import Any

from PIL import Image


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(
    width: int, height: int, color_type: int = 0, depth: int = 1, texts: int = 0, rows: int | None = None
) -> bytes:
    """Return a black PNG with `texts` megabytes of text; its data end after `rows`."""
    channels = {0: 1, 2: 3, 4: 2, 6: 4}[color_type]
    row_size = (width * channels * depth + 7) // 8 + 1
    data = zlib.compress(bytes(row_size * min(height, rows or height)))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0))
    text = b"".join(
        chunk(b"zTXt", b"t%d\0\0" % number + zlib.compress(bytes(2**20 - 1))) for number in range(texts)
    )
    return b"\x89PNG\r\n\x1a\n" + head + text + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def solid(mode: str, width: int, height: int, form: str, **options: Any) -> bytes:
    """Return the file of an image of one color."""
    stream = io.BytesIO()
    Image.new(mode, (width, height)).save(stream, form, **options)
    return stream.getvalue()


def scans(width: int, height: int, count: int) -> bytes:
    """Return a progressive JPEG whose last scan is repeated."""
    data = solid("RGB", width, height, "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * count + b"\xff\xd9"


def tiff(width: int, height: int, tile: int) -> bytes:
    """Return a TIFF whose only tile is much larger than the image."""
    data = zlib.compress(bytes(tile * tile))
    tags = {256: width, 257: height, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 325: len(data)}
    tags[324] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, number) for tag, number in sorted(tags.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def gif(width: int, height: int) -> bytes:
    """Return a GIF without data whose frame has a disposal method with transparency."""
    screen = b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6)
    control = b"!\xf9\x04" + bytes([0b1001, 0, 0, 0, 0])
    return screen + control + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x02\x01\x00\x00;"
