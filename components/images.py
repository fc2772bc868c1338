"""Images become examples, in the same way for training, for a prediction and in the server.

    decode(Path("cat.jpg").read_bytes(), ImageFormat(height=32, width=32, channels=3, resize="crop"))

Files are PNG, JPEG, WebP, GIF, BMP or TIFF; of several frames or pages the first counts. A image is turned
upright by its EXIF orientation; what is transparent shows white, as on a page; of 16 bits the upper 8 count;
CMYK becomes RGB without colour profiles.
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

MAX_PIXELS, MAX_SIDE = 50_000_000, 65_500  # of an image that is ingested
MAX_TILE = 1_000_000  # pixels of a tile of a TIFF, or as many as the image has
MAX_SCANS = 100  # of a JPEG, each of which costs as much as the image; progressive ones have about ten
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
SUFFIXES = frozenset(
    (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff")
)
"""Of files that `decode` reads, in lower case."""
FILTER = Image.Resampling.BILINEAR
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
PngImagePlugin.MAX_TEXT_MEMORY = 4 * PngImagePlugin.MAX_TEXT_CHUNK  # decompressed, and kept with the image
warnings.filterwarnings("ignore", module=r"PIL\.")  # a damaged image is refused, and fills no log
logging.getLogger("PIL").setLevel(logging.CRITICAL)
# Pillow does not say what damaged bytes raise; fuzzing found these.
DAMAGE = (
    *(ArithmeticError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError),
    *(struct.error, zlib.error),
)


def decode(data: bytes, form: ImageFormat) -> NDArray[np.uint8]:
    """Return the image in the bytes of a file: (form.height, form.width, form.channels).

    Raises:
        DataError: it is no such file, damaged, too large, or of another size than `exact` asks for. The
            message speaks of "the image"; the caller says which.
    """
    return convert(open_image(data), form)


def convert(image: Image.Image, form: ImageFormat) -> NDArray[np.uint8]:
    """Decode an opened image as `form` says; see `decode`."""
    if form.resize != "exact":
        # A JPEG much larger than needed is decoded at a half, a quarter or an eighth: four times as fast.
        side = 2 * max(form.height, form.width)
        image.draft(None, (side, side))
    upright = _upright(image)
    if form.resize == "exact" and upright.size != (form.width, form.height):
        raise DataError(
            f"The image is {upright.height} x {upright.width} pixels (height x width), and without "
            f"data.resize every one has to be {form.height} x {form.width}. Give it that size, or set "
            "data.resize before the model is trained."
        )
    resized = _resize(_with_channels(upright, form.channels), form)
    return np.array(resized, np.uint8).reshape(form.height, form.width, form.channels)


def size(data: bytes) -> tuple[int, int]:
    """Return (height, width) of the upright image in the bytes of a file.

    Raises:
        DataError: see `decode`.
    """
    upright = _upright(open_image(data))
    return upright.height, upright.width


def open_image(data: bytes, max_pixels: int = MAX_PIXELS, max_side: int = MAX_SIDE) -> Image.Image:
    """Return the image in the bytes of a file, not decoded yet; its size is within the limits.

    Raises:
        DataError: it is no image, or too large; the message speaks of "the image".
    """
    most = max_pixels, max_side
    _check_size(*_webp_size(data), *most)  # Pillow makes room for the pixels when it opens one
    # Pillow refuses twice as many; it makes room for a frame of a GIF, too.
    Image.MAX_IMAGE_PIXELS = (max_pixels if data.startswith(b"GIF") else MAX_PIXELS) // 2
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
        tile = _tile_pixels(image)
    except Image.DecompressionBombError as error:
        raise _too_large("far more", *most) from error
    except DAMAGE as error:
        begin = f"begins with {data[:12]!r}" if data else "is empty"
        raise DataError(
            "The image is not a PNG, JPEG, WebP, GIF, BMP or TIFF file that can be read: it "
            f"{begin}. Convert it, or remove it."
        ) from error
    _check_size(*image.size, *most)
    if tile > max(MAX_TILE, image.width * image.height):
        raise DataError(f"The image is a TIFF with tiles of {tile} pixels. Save it with smaller ones.")
    if image.format == "JPEG" and (scans := data.count(b"\xff\xda")) > MAX_SCANS:
        raise DataError(f"The image is a JPEG with {scans} scans, and at most {MAX_SCANS} are read.")
    return image


def _tile_pixels(image: Image.Image) -> int:
    """Return the pixels of a tile of a TIFF, which is decoded as a whole; 0 for other images."""
    tags = getattr(image, "tag_v2", {})
    return int(tags.get(ExifTags.Base.TileWidth, 0) * tags.get(ExifTags.Base.TileLength, 0))


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return (width, height) of a WebP file, by its header (RFC 9649); (0, 0) for what is none."""
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
        raise _too_large(f"{height} x {width}", max_pixels, max_side)


def _too_large(found: str, max_pixels: int, max_side: int) -> DataError:
    return DataError(
        f"The image has {found} pixels, and at most {max_pixels / 1e6:.3g} megapixels are read, with at "
        f"most {max_side:,} pixels on a side. Make it smaller."
    )


def _upright(image: Image.Image) -> Image.Image:
    """Decode the image and turn it as its EXIF orientation says; a missing or damaged EXIF says nothing."""
    try:
        image.load()
    except DAMAGE as error:
        raise DataError(f"The image is damaged or cut off: {error}. Save it again, or remove it.") from error
    with suppress(*DAMAGE):
        return image.transpose(TURNS[image.getexif()[ExifTags.Base.Orientation]])
    return image


def _with_channels(image: Image.Image, channels: int) -> Image.Image:
    """Return the image in grey (1 channel) or RGB (3)."""
    if image.mode.startswith("I;16"):  # Pillow would cut every grey above 255 off
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    mode = image.mode
    try:
        if mode in ("I", "F"):  # Pillow would cut every value above 255 off
            raise ValueError
        if image.has_transparency_data:
            above = image if image.mode == "RGBA" else image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", above.size, "white"), above)
        return image.convert("L" if channels == 1 else "RGB")
    except ValueError as error:
        raise DataError(
            f"The image has pixels of Pillow's mode {mode}, and grey or colours of 8 or 16 bits are read. "
            "Convert it, or remove it."
        ) from error


def _resize(image: Image.Image, form: ImageFormat) -> Image.Image:
    target_size = (form.width, form.height)
    if image.size == target_size:
        return image
    if form.resize == "crop":
        return ImageOps.fit(image, target_size, FILTER)
    if form.resize == "pad":
        return ImageOps.pad(image, target_size, FILTER, color=0)
    return image.resize(target_size, FILTER)
