"""The limits of a server follow from its container, and bodies are counted against them."""

import asyncio

import pytest

from modelyard.components.serve.body import Body
from modelyard.components.serve.limits import BASE, COPIES, PIXEL, limits
from modelyard.components.serve.replies import Refused
from modelyard.components.serve.settings import Serving

MIB = 2**20


@pytest.mark.parametrize("memory", [128 * MIB, 256 * MIB, 512 * MIB, 4096 * MIB, 2**36])
def test_the_largest_body_and_image_fit_into_the_container(memory):
    found = limits(Serving(), memory, cpus=2)
    assert found.body <= 32 * MIB
    assert found.image_pixels <= 16_000_000
    assert found.bodies >= 2 * found.body
    if memory >= 256 * MIB:
        assert BASE + found.body * COPIES + found.bodies <= memory
        assert BASE + found.image_pixels * PIXEL <= memory


def test_what_is_configured_holds():
    found = limits(Serving(max_body_bytes=7, max_pixels=9, threads=2), 2**30, cpus=8)
    assert (found.body, found.image_pixels, found.workers) == (7, 9, 4)


def receive(*parts):
    """Return ASGI's receive for a body in parts, whose last is the end."""
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages[-1]["more_body"] = False
    waiting = iter(messages)

    async def next_message():
        return next(waiting)

    return next_message


def test_bodies_are_held_until_they_are_answered_and_have_a_limit_together():
    found, held = limits(Serving(max_body_bytes=100), 0, cpus=1), [0]
    assert found.bodies == 200
    bodies = [Body({b"content-length": b"90"}, receive(b"x" * 50, b"x" * 40), found, held) for _ in range(3)]
    for body in bodies[:2]:
        assert len(asyncio.run(body.read())) == 90
    with pytest.raises(Refused) as refused:
        asyncio.run(bodies[2].read())
    assert refused.value.reply.status == 503
    for body in bodies:
        body.release()
    assert held == [0]
