"""The limits of a server, in the units of what they protect.

The section `serving` sets some; the others follow from the memory and the processors of its container, so
that a server at its limits is never killed for its memory.
"""

from threading import RLock
from typing import NamedTuple

from modelyard.components.resources import cpu_limit, memory_limit
from modelyard.components.serve.settings import Serving

BASE_MEMORY = (
    112 * 2**20
)  # bytes of a server with a small model that answers small requests, with pages to spare
JSON_MEMORY_FACTOR = 22
"""Bytes of memory for a byte of JSON while it is read, at worst (`[0,0,0,…` as float32, measured)."""
PIXEL_MEMORY = (
    20  # bytes of memory for a pixel while an image is decoded, at worst (WebP with transparency, measured)
)
LARGE_BODY, LARGE_IMAGE = 2**20, 10**6
"""Bytes of a body and pixels of an image from which they are read one at a time."""
MAX_BODY, MIN_BODY = 32 * 2**20, 2**20
MAX_PIXELS, MIN_PIXELS = 16_000_000, 1_000_000
MAX_SIDE = 16_384
IMAGES_PER_REQUEST = 4
"""How many images of the largest size a request may have; of smaller ones, as many more."""
LARGE_INPUT_LOCK = RLock()
"""ConnectionMemory while a large body or a large image is read: there is memory for one of them."""


class Limits(NamedTuple):
    """The limits of one server.

    Attributes:
        body: bytes of a request's body.
        connections: bytes of all connections, with what has arrived on them and is not answered.
        image_pixels: of an image, when it is decoded.
        image_side: pixels along a side of it.
        request_pixels: of all images of a request.
        workers: requests that are executed at once in threads, beside those on the event loop.
    """

    body: int
    connections: int
    image_pixels: int
    image_side: int
    request_pixels: int
    workers: int


def compute_limits(serving: Serving, memory: int | None = None, cpus: int | None = None) -> Limits:
    """Return the limits of a server.

    Args:
        serving: its settings.
        memory: bytes that it may use; None: those of its container.
        cpus: processors that it may use; None: those of its container.
    """
    free = max(0, (memory_limit() if memory is None else memory) - BASE_MEMORY)
    body = serving.max_body_bytes or min(MAX_BODY, max(MIN_BODY, free // 2 // JSON_MEMORY_FACTOR))
    pixels = serving.max_pixels or min(MAX_PIXELS, max(MIN_PIXELS, free * 3 // 5 // PIXEL_MEMORY))
    small = free // 6 // (JSON_MEMORY_FACTOR * LARGE_BODY)
    return Limits(
        body=body,
        connections=max(2 * body, free // 6),
        image_pixels=pixels,
        image_side=MAX_SIDE,
        request_pixels=IMAGES_PER_REQUEST * pixels,
        workers=max(1, min((cpu_limit() if cpus is None else cpus) // serving.threads, small)),
    )
