import io
import resource
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageDraw

from modelyard.components import images
from modelyard.components.artifacts import ImageFormat
from modelyard.components.errors import DataError
from tests import image_files


def encode(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def image_format(height: int, width: int, channels: int = 3, resize: str = "stretch") -> ImageFormat:
    return ImageFormat.model_validate(
        {"height": height, "width": width, "channels": channels, "resize": resize}
    )


def random_pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, channels), np.uint8)


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad", "exact"])
def test_an_image_of_the_requested_size_is_not_changed(resize) -> None:
    pixels = random_pixels(6, 4)
    decoded = images.decode(encode(Image.fromarray(pixels)), image_format(6, 4, 3, resize))
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, pixels)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA"])
@pytest.mark.parametrize("channels", [1, 3])
def test_all_png_modes_decode_to_the_same_pixels(mode, channels) -> None:
    gray = np.where(random_pixels(6, 4, 1) < 128, 0, 255).astype(np.uint8)
    image = Image.fromarray(gray[..., 0]).convert(mode)
    decoded = images.decode(encode(image), image_format(6, 4, channels))
    np.testing.assert_array_equal(decoded, gray.repeat(channels, axis=2))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_all_jpeg_modes_decode_to_the_same_pixels(mode) -> None:
    image = Image.new("RGB", (16, 16), (200, 200, 200)).convert(mode)
    decoded = images.decode(encode(image, "JPEG", quality=95), image_format(16, 16))
    assert np.abs(decoded.astype(int) - 200).max() <= 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_16_bit_pixels_are_reduced_to_their_upper_8_bits(kind) -> None:
    pixels = np.array([[0, 255, 256, 0x8040, 0xFFFF]], np.uint16)
    decoded = images.decode(encode(Image.fromarray(pixels), kind), image_format(1, 5, 1))
    assert decoded[0, :, 0].tolist() == [0, 0, 1, 0x80, 0xFF]


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_become_white(mode) -> None:
    drawing = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    drawing.putpixel((1, 2), (0, 0, 0, 255))
    decoded = images.decode(encode(drawing.convert(mode)), image_format(4, 4, 1))[..., 0]
    assert decoded[2, 1] == 0
    assert (np.delete(decoded.ravel(), 9) == 255).all()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation, kind) -> None:
    upright = Image.new("L", (32, 16))
    ImageDraw.Draw(upright).rectangle((0, 0, 15, 7), fill=255)  # top left
    stored = {
        1: upright,
        2: upright.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: upright.transpose(Image.Transpose.ROTATE_180),
        4: upright.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: upright.transpose(Image.Transpose.TRANSPOSE),
        6: upright.transpose(Image.Transpose.ROTATE_90),
        7: upright.transpose(Image.Transpose.TRANSVERSE),
        8: upright.transpose(Image.Transpose.ROTATE_270),
    }[orientation]
    exif = Image.Exif()
    exif[0x112] = orientation
    data = encode(stored, kind, exif=exif)
    assert images.read_size(data) == (16, 32)
    decoded = images.decode(data, image_format(16, 32, 1, "exact"))[..., 0]
    assert np.abs(decoded.astype(int) - np.asarray(upright)).max() < 60  # noise of JPEG


def test_damaged_exif_is_ignored() -> None:
    data = encode(Image.new("RGB", (4, 4), "red"), "JPEG", exif=b"Exif\0\0nonsense")
    assert images.decode(data, image_format(4, 4))[0, 0, 0] > 250


def bars() -> bytes:
    """Return an image of 40 x 80 pixels: a red quarter, a green half and a blue quarter."""
    image = Image.new("RGB", (80, 40), (0, 255, 0))
    image.paste((255, 0, 0), (0, 0, 20, 40))
    image.paste((0, 0, 255), (60, 0, 80, 40))
    return encode(image)


def test_stretch_scales_the_whole_image() -> None:
    decoded = images.decode(bars(), image_format(8, 8, 3, "stretch"))
    assert decoded[4, 0].argmax() == 0
    assert decoded[4, 4].argmax() == 1
    assert decoded[4, 7].argmax() == 2


def test_crop_cuts_out_the_center() -> None:
    decoded = images.decode(bars(), image_format(8, 8, 3, "crop"))
    assert (decoded.argmax(axis=2) == 1).all()


def test_pad_keeps_the_aspect_ratio_and_fills_with_black() -> None:
    decoded = images.decode(bars(), image_format(8, 8, 3, "pad"))
    assert not decoded[:2].any()
    assert not decoded[6:].any()
    assert decoded[2:6].any(axis=2).all()
    assert decoded[4, 0].argmax() == 0
    assert decoded[4, 7].argmax() == 2


@pytest.mark.parametrize("resize", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("shape", [(1, 5000), (5000, 1), (1, 1), (3, 7)])
def test_images_of_any_size_are_resized(resize, shape) -> None:
    image = Image.new("RGB", shape, (9, 9, 9))
    for kind in ("PNG", "JPEG"):
        assert images.decode(encode(image, kind), image_format(5, 6, 3, resize)).shape == (5, 6, 3)


def test_a_jpeg_decoded_at_reduced_scale_has_nearly_the_same_pixels() -> None:
    small = Image.fromarray(random_pixels(6, 8))
    image = small.resize((1600, 1200), Image.Resampling.BICUBIC)
    expected = images.decode(encode(image), image_format(24, 32))
    decoded = images.decode(encode(image, "JPEG", quality=95), image_format(24, 32))
    assert np.abs(decoded.astype(int) - expected).mean() < 2


def test_exact_refuses_another_size_and_names_both() -> None:
    data = encode(Image.new("RGB", (20, 30)))
    with pytest.raises(DataError, match=r"30 x 20 pixels .* 32 x 32.* data\.resize"):
        images.decode(data, image_format(32, 32, 3, "exact"))


@pytest.mark.parametrize(
    "data", [b"", b"a text", b"\x89PNG\r\n\x1a\n", encode(Image.new("RGB", (4, 4)), "PPM")]
)
def test_other_file_formats_are_refused(data) -> None:
    with pytest.raises(DataError, match="not a PNG, JPEG, WebP, GIF, BMP or TIFF"):
        images.decode(data, image_format(4, 4))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated_images_are_refused(kind) -> None:
    data = encode(Image.fromarray(random_pixels(40, 40)), kind)
    for stop in range(0, len(data) - 60, 97):
        with pytest.raises(DataError, match="The image is"):
            images.decode(data[:stop], image_format(8, 8))


@pytest.mark.parametrize("kind", ["WEBP", "GIF", "BMP", "TIFF"])
def test_lossless_formats_keep_all_pixels(kind) -> None:
    pixels = random_pixels(16, 16, 1).repeat(3, axis=2)  # a GIF has 256 colors
    data = encode(Image.fromarray(pixels), kind, **({"lossless": True} if kind == "WEBP" else {}))
    np.testing.assert_array_equal(images.decode(data, image_format(16, 16, 3, "exact")), pixels)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_decoded(kind) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:])
    assert images.decode(data, image_format(8, 8))[0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_float_and_integer_pixels_are_refused(mode) -> None:
    with pytest.raises(DataError, match=f"mode {mode}"):
        images.decode(encode(Image.new(mode, (4, 4)), "TIFF"), image_format(4, 4))


@pytest.mark.parametrize("lossless", [True, False])
@pytest.mark.parametrize("extended", [True, False])
def test_a_webp_header_with_too_many_pixels_is_refused(lossless, extended) -> None:
    exif = {"exif": Image.Exif().tobytes()} if extended else {}
    data = bytearray(encode(Image.new("RGB", (16, 16)), "WEBP", lossless=lossless, **exif))
    start = 24 if extended else 21 if lossless else 26
    data[start : start + 6 if extended else start + 4] = b"\xff" * (6 if extended else 4)
    with pytest.raises(DataError, match="at most 50 megapixels"):
        images.decode(bytes(data), image_format(4, 4))


@pytest.mark.parametrize("side", [8_000, 50_000])
def test_a_png_header_with_too_many_pixels_is_refused(side) -> None:
    data = image_files.png(side, side, color_type=2, depth=8, rows=1)
    with pytest.raises(DataError, match="at most 50 megapixels"):
        images.decode(data, image_format(8, 8))


@pytest.mark.filterwarnings("ignore::UserWarning")  # from Pillow, about EXIF
def test_damaged_files_are_decoded_or_raise_data_errors() -> None:
    random = np.random.default_rng(0)
    exif = Image.Exif()
    exif[0x112], exif[0x10E] = 6, "a description"
    files = [encode(Image.fromarray(random_pixels(20, 24)), kind, exif=exif) for kind in images.FORMATS]
    for number in range(1800):
        data = bytearray(files[number % len(files)])
        for _ in range(random.integers(1, 4)):
            data[random.integers(2, 200)] = random.integers(256)
        with suppress(DataError):
            assert images.decode(bytes(data), image_format(8, 8)).shape == (8, 8, 3)


@pytest.mark.parametrize(
    "data",
    [image_files.png(2, 2, texts=5), image_files.tiff(64, 64, 2048), image_files.gif(5000, 3000)],
    ids=["texts", "tile", "frame"],
)
def test_a_small_file_that_allocates_much_memory_is_refused(data) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DataError):
        images.open_image(data, max_pixels=10_000_000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000
