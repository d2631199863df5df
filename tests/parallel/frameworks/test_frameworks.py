"""Every operation on arrays of every framework: numbers, kind and dtype of the result, and what stays unchanged."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.frameworks.kinds import KINDS, Kind, kind_of
from parallel.reference import CALLS, NAMES, assert_same, calls_of, dtype_of, reduced, values
from parallel.ring import around
from parallel.rooted import ROOTED

import mlxdist as dist

IN_PLACE = ("contiguous", "in inference mode")  # views that out= can be
SHAPES = ((), (0,), (5,), (2, 3), (2, 0, 3))
# call -> (the operation, its result from all ranks' x on one rank; None: x itself)
Expected = Callable[[list[np.ndarray], int], "np.ndarray | None"]
COLLECTIVES: dict[str, tuple[Callable[..., Any], Expected]] = {
    **{call: (run, lambda xs, rank, call=call: reduced(call, xs)) for call, run in CALLS.items()},
    "all_gather": (dist.all_gather, lambda xs, rank: np.concatenate([np.atleast_1d(x) for x in xs])),
    "sum_scatter": (dist.sum_scatter, lambda xs, rank: np.split(reduced("all_sum", xs), len(xs))[rank]),
    "broadcast": (functools.partial(dist.broadcast, src=0), lambda xs, rank: xs[0]),
    **{
        call: (
            lambda x, rooted=rooted, **keywords: rooted.run(x, 0, **keywords),
            lambda xs, rank, rooted=rooted: rooted.expected(xs, rank, 0),
        )
        for call, rooted in ROOTED.items()
        if call == "reduce all_sum" or not call.startswith("reduce")
    },
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return kind_of(request.param)


def has_call(name: str, call: str) -> bool:
    return call not in CALLS or call in calls_of(name)


def shape_for(call: str, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
    is_parted = call == "sum_scatter" or (call in ROOTED and ROOTED[call].is_parted)
    return (2 * size, *shape[1:]) if is_parted else shape


@pytest.mark.parametrize("name", NAMES)
def test_collectives(world: dist.Group, kind: Kind, name: str) -> None:
    size, rank = world.size(), world.rank()
    for (call, (run, expected_of)), shape in itertools.product(COLLECTIVES.items(), SHAPES):
        if not has_call(name, call):
            continue
        shape = shape_for(call, shape, size)
        each = [values(name, shape, r) for r in range(size)]
        expected = expected_of(each, rank)
        for view, made in kind.views.items():
            x = made(each[rank])
            if x is None:
                continue
            result = run(x)
            assert isinstance(result, kind.cls), (call, view)
            assert_same(kind.elements(result), each[rank] if expected is None else expected)
            assert result is x or size > 1 or (call in ("all_gather", "gather") and shape == ())
            assert_same(kind.elements(x), each[rank])
            if expected is None:
                assert result is x, (call, view)
                without_out(kind, run, x, expected_of(each, 0), in_place=view in IN_PLACE)
            elif kind.is_mutable and size > 1:
                into_out(kind, run, x, expected, in_place=view in IN_PLACE)


def without_out(kind: Kind, run: Callable[..., Any], x: Any, at_root: Any, in_place: bool) -> None:
    """The calls of a rank that gets no result, while the root makes those of into_out."""
    for _ in range(kind.is_mutable + (kind.is_mutable and tuple(x.shape) == at_root.shape and in_place)):
        assert run(x) is x


def into_out(kind: Kind, run: Callable[..., Any], x: Any, expected: np.ndarray, in_place: bool) -> None:
    """A tensor passed as out= is written to and returned, even x itself where that is allowed."""
    out = kind.views["contiguous"](np.zeros_like(expected))
    pointer = kind.elements(out).ctypes.data
    assert run(x, out=out) is out
    assert kind.elements(out).ctypes.data == pointer
    assert_same(kind.elements(out), expected)
    if tuple(x.shape) == expected.shape and in_place:
        assert run(x, out=x) is x
        assert_same(kind.elements(x), expected)


@pytest.mark.parametrize("name", NAMES)
def test_messages(world: dist.Group, kind: Kind, name: str) -> None:
    if world.size() == 1:
        pytest.skip("a group of one has no peers")
    before = (world.rank() - 1) % world.size()
    for shape, view in itertools.product(SHAPES, kind.views.values()):
        x = view(values(name, shape, world.rank()))
        if x is None:
            continue
        ways: list[Callable[[int], Any]] = [
            lambda src, shape=shape: dist.recv(shape, kind.dtype(name), src),
            lambda src, x=x: dist.recv_like(x, src),
        ]
        if kind.is_mutable:
            out = kind.views["contiguous"](np.zeros(shape, dtype_of(name)))
            ways.append(lambda src, x=x, out=out: dist.recv_like(x, src, out=out))
        for receive in ways:
            result = around(world, lambda dst, x=x: dist.send(x, dst), receive)
            assert isinstance(result, kind.cls)
            assert_same(kind.elements(result), values(name, shape, before))
        both = functools.partial(dist.sendrecv, x, (world.rank() + 1) % world.size(), before)
        for result in [both(), both(out=out)] if kind.is_mutable else [both()]:
            assert isinstance(result, kind.cls)
            assert_same(kind.elements(result), values(name, shape, before))


def test_group_of_one_with_out(world: dist.Group, kind: Kind) -> None:
    if not kind.is_mutable:
        pytest.skip("these arrays cannot be written to")
    alone = world.split(world.rank())
    for (call, (run, _)), name in itertools.product(COLLECTIVES.items(), NAMES):
        if not has_call(name, call):
            continue
        each = values(name, (2, 3), world.rank())
        out = kind.views["contiguous"](np.zeros_like(each))
        assert run(kind.views["transposed"](each), group=alone, out=out) is out, call
        assert_same(kind.elements(out), each)


def test_large(world: dist.Group, kind: Kind) -> None:
    each = [np.random.default_rng(rank).normal(size=100_003).astype(np.float32) for rank in range(world.size())]
    result = dist.all_sum(kind.views["contiguous"](each[world.rank()]))
    expected = np.sum(np.array(each, np.float64), axis=0)
    np.testing.assert_allclose(kind.elements(result), expected, rtol=1e-5, atol=1e-6)
