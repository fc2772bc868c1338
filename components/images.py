"""Decoding of images: the same for training, predictions and the server.

    decode(Path("cat.jpg").read_bytes(), ImageFormat(height=32, width=32, channels=3, resize="crop"))

The formats are PNG, JPEG, WebP, GIF, BMP and TIFF; of several frames or pages, the first is decoded. The EXIF
orientation is applied, transparent pixels become white, 16 bits become 8, and CMYK becomes RGB without color
profiles.
"""

import io
import logging
import struct
import warnings
import zlib
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, PngImagePlugin

from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError

MAX_PIXELS, MAX_SIDE = 50_000_000, 65_500  # of ingested images
MAX_TILE_PIXELS = 1_000_000  # pixels of a TIFF tile that is larger than its image
MAX_SCANS = 100  # of a JPEG, which is decoded once per scan; progressive JPEGs have about ten
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
)
"""The suffixes of the files that `decode` reads, in lower case."""
RESAMPLING = Image.Resampling.BILINEAR
PngImagePlugin.MAX_TEXT_MEMORY = 4 * PngImagePlugin.MAX_TEXT_CHUNK  # bytes of decompressed text
warnings.filterwarnings("ignore", module=r"PIL\.")  # a damaged image raises an error
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# What Pillow raises for damaged files, which its documentation does not list.
DAMAGE_ERRORS = (
    *(ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)


class ImageSizeError(DataError):
    """The image does not have the size that `exact` requires."""


def decode(data: bytes, image_format: ImageFormat) -> NDArray[np.uint8]:
    """Return the image in the bytes of a file: (height, width, channels).

    Raises:
        DataError: the file is not an image, damaged, too large, or does not have the size that `exact`
            requires. The message does not name the file.
    """
    return convert(open_image(data), image_format)


def convert(image: Image.Image, image_format: ImageFormat) -> NDArray[np.uint8]:
    """Decode an opened image; see `decode`."""
    if image_format.resize != "exact":
        # Large JPEGs are decoded at a half, a quarter or an eighth of their size: four times as fast.
        side = 2 * max(image_format.height, image_format.width)
        image.draft(None, (side, side))
    upright = _apply_orientation(image)
    if image_format.resize == "exact" and upright.size != (image_format.width, image_format.height):
        raise ImageSizeError(
            f"The image has {upright.height} x {upright.width} pixels (height x width), and must have "
            f"{image_format.height} x {image_format.width}. Resize it, or set data.resize and train again."
        )
    pixels = _resize(_convert_channels(upright, image_format.channels), image_format)
    return np.array(pixels, np.uint8).reshape(image_format.height, image_format.width, image_format.channels)


def read_size(data: bytes) -> tuple[int, int]:
    """Return (height, width) of the upright image in the bytes of a file.

    Raises:
        DataError: see `decode`.
    """
    upright = _apply_orientation(open_image(data))
    return upright.height, upright.width


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Image.Image:
    """Return the image in the bytes of a file, not yet decoded; its size is within the limits.

    Raises:
        DataError: see `decode`.
    """
    limits = max_pixels, max_side
    _check_size(*_read_webp_size(data), *limits)  # Pillow allocates the pixels of a WebP when it opens it
    # Pillow refuses images with more than twice this number. It also allocates the pixels of a GIF in open().
    Image.MAX_IMAGE_PIXELS = (max_pixels if data.startswith(b"GIF") else MAX_PIXELS) // 2
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        tile = _count_tile_pixels(image)
    except Image.DecompressionBombError as error:
        raise _size_error("too many", *limits) from error
    except DAMAGE_ERRORS as error:
        begin = f"begins with {data[:12]!r}" if data else "is empty"
        raise DataError(
            f"The image is not a PNG, JPEG, WebP, GIF, BMP or TIFF file: it {begin}. Convert it, or "
            "remove it."
        ) from error
    _check_size(*image.size, *limits)
    if tile > max(MAX_TILE_PIXELS, image.width * image.height):
        raise DataError(f"The image is a TIFF with tiles of {tile} pixels. Save it with smaller tiles.")
    if image.format == "JPEG" and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise DataError(
            f"The image is a JPEG with {scans} scans; at most {MAX_SCANS} are allowed. Save it again."
        )
    return image


def _count_tile_pixels(image: Image.Image) -> int:
    """Return the number of pixels in a tile of a TIFF; 0 for other images."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(ExifTags.Base.TileWidth, 0) * tags.get(ExifTags.Base.TileLength, 0))


def _read_webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) from the header of a WebP file (RFC 9649); (0, 0) for other files."""
    if data[:4] != b"RIFF" or data[8:12] != b"WEBP":
        return 0, 0
    match data[12:16]:
        case b"VP8X":
            return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
        case b"VP8L":
            sides = int.from_bytes(data[21:25], "little")
            return (sides & 0x3FFF) + 1, (sides >> 14 & 0x3FFF) + 1
    return int.from_bytes(data[26:28], "little") & 0x3FFF, int.from_bytes(data[28:30], "little") & 0x3FFF


def _check_size(width: int, height: int, max_pixels: int, max_side: int) -> None:
    if width * height > max_pixels or max(width, height) > max_side:
        raise _size_error(f"{height} x {width}", max_pixels, max_side)


def _size_error(size: str, max_pixels: int, max_side: int) -> DataError:
    return DataError(
        f"The image has {size} pixels; at most {max_pixels / 1e6:.3g} megapixels, and {max_side:,} pixels on "
        "each side, are allowed. Reduce its size."
    )


def _apply_orientation(image: Image.Image) -> Image.Image:
    """Decode the image and apply its EXIF orientation, if it has a valid one."""
    try:
        image.load()
    except DAMAGE_ERRORS as error:
        raise DataError(f"The image is damaged or truncated: {error}. Save it again or remove it.") from error
    with suppress(*DAMAGE_ERRORS):
        ImageOps.exif_transpose(image, in_place=True)
    return image


def _convert_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return the image in grayscale (1 channel) or RGB (3)."""
    if image.mode.startswith("I;16"):  # Pillow would clip values at 255
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = image.mode
    try:
        if mode in ("I", "F"):
            raise ValueError("Pillow would clip values at 255")
        if image.has_transparency_data:
            rgba = image if image.mode == "RGBA" else image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
        return image.convert("L" if channels == 1 else "RGB")
    except ValueError as error:
        raise DataError(
            f"The image has Pillow's mode {mode}, which is not supported. Convert it to 8 or 16 bits per "
            "channel, or remove it."
        ) from error


def _resize(image: Image.Image, image_format: ImageFormat) -> Image.Image:
    target_size = (image_format.width, image_format.height)
    if image.size == target_size:
        return image
    if image_format.resize == "crop":
        return ImageOps.fit(image, target_size, RESAMPLING)
    if image_format.resize == "pad":
        return ImageOps.pad(image, target_size, RESAMPLING, color=0)
    return image.resize(target_size, RESAMPLING)
