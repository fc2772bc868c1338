"""The limits of a server.

The section `serving` sets some; the others follow from the memory and CPUs of the container, so that a
server at its limits is never OOMKilled.
"""

from threading import RLock
from typing import NamedTuple

from modelyard.components.resources import read_cpu_limit, read_memory_limit
from modelyard.components.serve.settings import Serving

BASE_MEMORY = 112 * 2**20  # bytes of a server with a small model and small requests, with a reserve
JSON_MEMORY_FACTOR = 22
"""Maximum bytes of memory to parse a byte of JSON (`[0,0,0,…` as float32, measured)."""
PIXEL_MEMORY = 20  # maximum bytes of memory to decode a pixel (WebP with transparency, measured)
LARGE_BODY, LARGE_IMAGE = 2**20, 10**6
"""Bytes of a body and pixels of an image above which they are processed one at a time."""
MAX_BODY, MIN_BODY = 32 * 2**20, 2**20
MAX_PIXELS, MIN_PIXELS = 16_000_000, 1_000_000
MAX_SIDE = 16_384
IMAGES_PER_REQUEST = 4
"""Maximum number of images of the maximum size in a request; more if they are smaller."""
LARGE_INPUT_LOCK = RLock()
"""Held while a large body or image is processed: there is memory for one of them."""


class Limits(NamedTuple):
    """The limits of one server.

    Attributes:
        body: bytes of a request's body.
        connections: bytes of all connections and their unanswered requests.
        image_pixels: pixels of an image.
        image_side: width and height of an image in pixels.
        request_pixels: pixels of all images of a request.
        workers: threads that execute requests, in addition to the event loop.
    """

    body: int
    connections: int
    image_pixels: int
    image_side: int
    request_pixels: int
    workers: int


def compute_limits(serving: Serving, memory: int | None = None, cpus: int | None = None) -> Limits:
    """Return the limits of a server; memory (bytes) and CPUs are by default those of the container."""
    free = max(0, (read_memory_limit() if memory is None else memory) - BASE_MEMORY)
    body = serving.max_body_bytes or min(MAX_BODY, max(MIN_BODY, free // 2 // JSON_MEMORY_FACTOR))
    pixels = serving.max_pixels or min(MAX_PIXELS, max(MIN_PIXELS, free * 3 // 5 // PIXEL_MEMORY))
    bodies = free // 6 // (JSON_MEMORY_FACTOR * LARGE_BODY)  # whose parsing fits into a sixth of the memory
    return Limits(
        body=body,
        connections=max(2 * body, free // 6),
        image_pixels=pixels,
        image_side=MAX_SIDE,
        request_pixels=IMAGES_PER_REQUEST * pixels,
        workers=max(1, min((read_cpu_limit() if cpus is None else cpus) // serving.threads, bodies)),
    )
