"""sendrecv: around rings and in pairs, all ranks at once, whatever the length; and with ranks that send and receive."""

from __future__ import annotations

import functools
import importlib.util
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements, may_be_out
from parallel.reference import NAMES, assert_new, assert_same, seeded, thinned, values
from parallel.refused import OTHER, RANK, SIZE, X, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist

SHAPES = ((), (0,), (5,), (2, 3), (2, 0, 3))
WAYS = ("new", "out", "in place")


def ring(group: dist.Group, step: int = 1) -> tuple[int, int]:
    """To whom, from whom."""
    return (group.rank() + step) % group.size(), (group.rank() - step) % group.size()


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    needs_peers(world)
    dst, src = ring(world)
    for shape, provider, way in thinned(itertools.product(SHAPES, PROVIDERS, WAYS), name, world.size(), 7, 47):
        x = PROVIDERS[provider](values(name, shape, world.rank()))
        if x is None or (way == "in place" and not may_be_out(x)):
            continue
        before = elements(x).tobytes()
        expected = np.array(elements(PROVIDERS[provider](values(name, shape, src))), order="C")
        if way == "new":
            result = dist.sendrecv(x, dst, src)
            assert_new(result, elements(x))
        else:
            out = x if way == "in place" else np.empty(expected.shape, expected.dtype)
            assert dist.sendrecv(x, dst, src, out=out) is out
            result = elements(out)
        assert_same(result, expected)
        assert way == "in place" or elements(x).tobytes() == before


# Within a host and by MPI these are one piece and several, and more than can be under way.
@pytest.mark.parametrize("nbytes", [40, 41, 130_000, 262_080, 262_081, 3_000_001])
def test_lengths(world: dist.Group, nbytes: int) -> None:
    needs_peers(world)
    each = [seeded(rank, nbytes).integers(0, 256, nbytes, np.uint8) for rank in range(world.size())]
    for step in {1, world.size() - 1, world.size() // 2}:
        dst, src = ring(world, step)
        x = each[world.rank()].copy()
        assert_same(dist.sendrecv(x, dst, src), each[src])
        assert_same(dist.sendrecv(x, dst, src, out=x), each[src])


@pytest.mark.parametrize("nbytes", [8, 1_000_000])
def test_with_ranks_that_send_and_receive(world: dist.Group, nbytes: int) -> None:
    """The last rank makes two calls; the messages are the same."""
    needs_peers(world)
    x = np.full(nbytes, world.rank(), np.uint8)
    dst, src = ring(world)
    for first in ("send", "recv"):
        if world.rank() < world.size() - 1:
            got = dist.sendrecv(x, dst, src)
        elif first == "send":
            dist.send(x, dst)
            got = dist.recv_like(x, src)
        else:
            got = dist.recv_like(x, src)
            dist.send(x, dst)
        assert_same(got, np.full(nbytes, src, np.uint8))


def test_another_length(world: dist.Group) -> None:
    """It is thrown away when the own message has arrived, and the next can be received."""
    needs_peers(world)
    dst, src = ring(world)
    x = np.arange(300_000 + world.rank())
    with pytest.raises(
        dist.MismatchError, match=rf"^\[sendrecv\] rank {src} sent {8 * (300_000 + src)} bytes of int64"
    ):
        dist.sendrecv(x, dst, src)
    assert dist.sendrecv(world.rank(), dst, src) == src


def test_mlx(world: dist.Group) -> None:
    needs_peers(world)
    if not importlib.util.find_spec("mlx"):
        pytest.skip("MLX is not installed")
    import mlx.core as mx

    dst, src = ring(world)
    for dtype, n in itertools.product(
        (mx.bool_, mx.int8, mx.uint64, mx.float16, mx.bfloat16, mx.float32, mx.complex64), (0, 3, 700_001)
    ):
        x = (mx.arange(n) % 5 + world.rank()).astype(dtype)
        expected = (mx.arange(n) % 5 + src).astype(dtype)
        got = dist.sendrecv(x, dst, src)
        assert got.dtype == dtype
        assert got.shape == (n,)
        assert mx.array_equal(got, expected).item()
        assert mx.array_equal(x, (mx.arange(n) % 5 + world.rank()).astype(dtype)).item()
    # the cotangent of what came from src goes back there
    value, gradient = mx.value_and_grad(lambda x: (dist.sendrecv(x, dst, src) * (world.rank() + 1)).sum())(mx.ones(3))
    assert value.item() == 3 * (world.rank() + 1)
    assert gradient.tolist() == [dst + 1] * 3
    batch = mx.vmap(lambda x: dist.sendrecv(x, dst, src), in_axes=1)(mx.full((2, 3), world.rank()))
    assert batch.tolist() == [[src] * 2] * 3


def test_wrong_arguments(world: dist.Group) -> None:
    both = functools.partial(dist.sendrecv, X)
    if SIZE == 1:
        with pytest.raises(ValueError, match=r"^\[sendrecv\] a group of one has no peers: test group.size\(\) > 1"):
            both(0, 0)
        return
    refused: list[tuple[str, type[Exception], Callable[..., Any], tuple[Any, ...], Any]] = [
        (f"dst={RANK} is this rank itself: pass", ValueError, both, (RANK, OTHER), None),
        (f"src={RANK} is this rank itself: pass", ValueError, both, (OTHER, RANK), None),
        (f"src={SIZE} is not in the group: pass", ValueError, both, (OTHER, SIZE), None),
        ("dst=True is not an int: pass", TypeError, both, (True, OTHER), None),
        ("out must have shape", ValueError, both, (OTHER, OTHER), np.zeros(3)),
        ("out must have dtype", ValueError, both, (OTHER, OTHER), np.zeros(6, np.int64)),
        ("is not an array: pass", TypeError, functools.partial(dist.sendrecv, object()), (OTHER, OTHER), None),
    ]
    for way in (dist.sendrecv, dist.sendrecv.__wrapped__):
        assert way.__name__ == "sendrecv"
    assert_refused(
        case("sendrecv", text, error, run, *peers, **({} if out is None else {"out": out}))
        for text, error, run, peers, out in refused
    )
