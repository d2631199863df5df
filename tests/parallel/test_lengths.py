"""A message of unexpected length: an error on the receiver, and nothing is written anywhere."""

from __future__ import annotations

import functools

import numpy as np
import pytest
from parallel.ring import around, needs_peers

import mlxdist as dist

MARGIN, CANARY = 4096, 0xA5
SMALL, LARGE = 8, 300_000


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        (SMALL + 1, SMALL),
        (SMALL - 1, SMALL),
        (0, SMALL),
        (SMALL, 0),
        (LARGE + 1, LARGE),
        (LARGE - 1, LARGE),
        (LARGE, SMALL),
        (SMALL, LARGE),
        (0, LARGE),
    ],
)
def test_another_length(world: dist.Group, sent: int, expected: int) -> None:
    needs_peers(world)
    before = (world.rank() - 1) % world.size()
    held = bytearray([CANARY]) * (expected + 2 * MARGIN)
    out = np.frombuffer(held, np.uint8)[MARGIN : MARGIN + expected]
    message = np.full(sent, world.rank(), np.uint8)

    def refused(src: int) -> None:
        text = (
            rf"^\[recv\w*\] rank {src} sent {sent} bytes of uint8, "
            rf"rank {world.rank()} expected {expected} of uint8: pass recv"
        )
        with pytest.raises(dist.MismatchError, match=text):
            dist.recv_like(out, src, out=out)

    around(world, functools.partial(dist.send, message), refused)
    assert held.count(CANARY) == len(held)
    # a correct one works right after it
    right = np.full(expected, world.rank(), np.uint8)
    around(world, functools.partial(dist.send, right), lambda src: dist.recv_like(out, src, out=out))
    assert held.count(CANARY, 0, MARGIN) == MARGIN
    assert bytes(held[MARGIN : MARGIN + expected]) == bytes([before]) * expected
    assert held.count(CANARY, MARGIN + expected) == MARGIN


def test_another_dtype_of_another_length(world: dist.Group) -> None:
    """Lengths are compared in bytes; the group also stays usable for collectives."""
    needs_peers(world)
    x = np.ones(4, np.float32)

    def refused(src: int) -> None:
        with pytest.raises(dist.MismatchError, match=r"^\[recv\] .* sent 16 bytes of float32, .* expected 32"):
            dist.recv(4, np.float64, src)

    around(world, functools.partial(dist.send, x), refused)
    np.testing.assert_array_equal(dist.all_sum(x), np.full(4, world.size()))
    received = around(world, functools.partial(dist.send, x), functools.partial(dist.recv, 4, np.float32))
    np.testing.assert_array_equal(received, x)


def test_only_the_wrong_one_is_thrown_away(world: dist.Group) -> None:
    """Of several messages under way, those before and after it arrive."""
    needs_peers(world)
    if world.rank() == 0:
        for length in (1, 2, 3):
            dist.send(np.full(length, length, np.int32), 1)
    elif world.rank() == 1:
        assert dist.recv(1, np.int32, 0) == 1
        with pytest.raises(dist.MismatchError, match="rank 0 sent 8 bytes of int32, rank 1 expected 4 of int32"):
            dist.recv(1, np.int32, 0)
        np.testing.assert_array_equal(dist.recv(3, np.int32, 0), [3, 3, 3])
