"""The limits of a server are computed from its container; a larger body is refused."""

import asyncio

import pytest

from modelyard.components.serve.body import Body
from modelyard.components.serve.limits import (
    BASE_MEMORY,
    JSON_MEMORY_FACTOR,
    LARGE_BODY,
    PIXEL_MEMORY,
    compute_limits,
)
from modelyard.components.serve.replies import HttpError
from modelyard.components.serve.settings import Serving

MIB = 2**20


@pytest.mark.parametrize("cpus", [1, 64])
@pytest.mark.parametrize("memory", [128 * MIB, 256 * MIB, 512 * MIB, 4096 * MIB, 2**36])
def test_concurrent_requests_fit_into_the_container(memory, cpus):
    limits = compute_limits(Serving(), memory, cpus)
    assert limits.workers >= 1
    assert limits.body <= 32 * MIB
    assert limits.image_pixels <= 16_000_000
    assert limits.connections >= 2 * limits.body
    if memory >= 256 * MIB:
        largest_request = max(limits.body * JSON_MEMORY_FACTOR, limits.image_pixels * PIXEL_MEMORY)
        assert (
            BASE_MEMORY
            + largest_request
            + limits.workers * JSON_MEMORY_FACTOR * LARGE_BODY
            + limits.connections
            <= memory
        )


def test_configured_limits_are_used():
    limits = compute_limits(Serving(max_body_bytes=7, max_pixels=9, threads=2), 2**30, cpus=8)
    assert (limits.body, limits.image_pixels, limits.workers) == (7, 9, 4)


def receive(*parts):
    """Return the ASGI function `receive` for a body in parts."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    remaining = iter(messages)

    async def next_message():
        return next(remaining)

    return next_message


def test_a_body_is_read_up_to_its_limit():
    body = Body({b"transfer-encoding": b"chunked"}, receive(b"x" * 50, b"x" * 40), 90)
    assert len(asyncio.run(body.read())) == 90
    body = Body({b"transfer-encoding": b"chunked"}, receive(b"x" * 50, b"x" * 41), 90)
    with pytest.raises(HttpError) as refused:
        asyncio.run(body.read())
    assert refused.value.reply.status == 413
