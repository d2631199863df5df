"""all_to_all, gather, scatter and reduce: every type, shape and root; what is in place, wrong, or long."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements, may_be_out
from parallel.reference import CALLS, NAMES, assert_new, assert_same, long, seeded, thinned, values
from parallel.refused import RANK, SIZE, WORLD, X, assert_refused, case
from parallel.ring import needs_peers
from parallel.rooted import ROOTED, Rooted, rooted_of

import mlxdist as dist
from mlxdist import _core

SHAPES = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3))
WAYS = ("new", "out", "in place", "later")
# Elements of a part, of 4 bytes: for the slots, for one chunk and for several.
COUNTS = (0, 1, 2000, long(100_003), long(300_001))


def check(operation: Rooted, xs: list[Any], root: int, way: str) -> None:
    """One call, and what the rank has afterwards."""
    each = [np.array(elements(x), order="C") for x in xs]
    x, expected = xs[RANK], operation.expected(each, RANK, root)
    if expected is None:
        assert (operation.run(x, root, wait=False).wait() if way == "later" else operation.run(x, root)) is x
    elif way == "later":
        work = operation.run(x, root, wait=False)
        assert_same(np.asarray(elements(work.wait())), expected)
    elif way == "new":
        result = operation.run(x, root)
        assert_same(np.asarray(elements(result)), expected)
        if SIZE > 1:
            assert_new(result, elements(x))
    elif way == "out":
        out = np.empty_like(expected)
        assert operation.run(x, root, out=out) is out
        assert_same(out, expected)
    elif expected.shape == each[RANK].shape and may_be_out(x):
        assert operation.run(x, root, out=x) is x
        assert_same(np.asarray(elements(x)), expected)
        return
    else:
        operation.run(x, root)
    assert elements(x).tobytes() == each[RANK].tobytes()


def cases(name: str) -> Iterator[tuple[Any, ...]]:
    return thinned(itertools.product(rooted_of(name), SHAPES, PROVIDERS, WAYS, range(SIZE)), name, SIZE, 37, 211)


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    for call, shape, provider, way, root in cases(name):
        shape = ROOTED[call].shape(shape, SIZE)
        xs = [PROVIDERS[provider](values(name, shape, rank)) for rank in range(SIZE)]
        if xs[0] is not None:
            check(ROOTED[call], xs, root, way)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("call", [call for call in ROOTED if call == "reduce all_sum" or "reduce" not in call])
def test_lengths(world: dist.Group, call: str, count: int) -> None:
    """Also in place, and for each root."""
    operation = ROOTED[call]
    shape = (SIZE * count if operation.is_parted else count,)
    for root, way in zip(range(SIZE), itertools.cycle(WAYS)):
        check(operation, [seeded(rank, 7).integers(-99, 99, shape, np.int32) for rank in range(SIZE)], root, way)


@pytest.mark.parametrize("count", COUNTS)
def test_a_part_in_place(world: dist.Group, count: int) -> None:
    """MPI_IN_PLACE: what a rank contributes to a gather, and what it gets of a scatter."""
    whole = [seeded(rank, 8).integers(-99, 99, SIZE * count, np.int32) for rank in range(SIZE)]
    own = slice(RANK * count, (RANK + 1) * count)
    for root in range(SIZE):
        x = whole[RANK].copy()
        result = dist.gather(x[own], root, **({"out": x} if root == RANK else {}))
        assert (result is x) == (root == RANK)
        parts = np.concatenate([np.split(w, SIZE)[rank] if count else w for rank, w in enumerate(whole)])
        assert np.array_equal(x, parts if root == RANK else whole[RANK])
        x = whole[RANK].copy()
        dist.scatter(x, root, out=x[own])
        expected = whole[RANK].copy()
        expected[own] = whole[root][own]
        assert np.array_equal(x, expected)


@pytest.mark.parametrize("call", ROOTED)
def test_by_mpi(world: dist.Group, call: str) -> None:
    """What libmpi does with memory of a device: pretended, since it does the same with that of the host."""
    operation, shape = ROOTED[call], (6 * SIZE, 3)
    name, _, op = call.partition(" all_")
    for root in range(SIZE):
        each = [values("int32", shape, rank) for rank in range(SIZE)]
        expected = operation.expected(each, RANK, root)
        x, out = each[RANK].copy(), np.zeros_like(each[RANK] if expected is None else expected)
        peer = None if call == "all_to_all" else root
        on_device = [
            _core.Buffer(a.ctypes.data, a.size, _core.type_of(a.dtype), a, a.shape, on_device=True) for a in (x, out)
        ]
        if SIZE > 1:
            _core.prepare(name, world, peer, x, op=op or None).run(*on_device)
            assert_same(out, np.zeros_like(x) if expected is None else expected)
        assert_same(x, each[RANK])


def test_buffers(world: dist.Group) -> None:
    x, out = bytearray([RANK] * SIZE), bytearray(SIZE)
    assert dist.all_to_all(x, out=out) is out
    assert list(out) == list(range(SIZE))


def test_numbers(world: dist.Group) -> None:
    number = float(RANK)
    assert dist.reduce(number, 0, op="max") == (SIZE - 1 if RANK == 0 else number)
    gathered = dist.gather(number, SIZE - 1)
    assert gathered.tolist() == list(range(SIZE)) if RANK == SIZE - 1 else gathered is number


def test_group_of_one(world: dist.Group) -> None:
    alone = world.split(RANK)
    x = np.arange(6)
    for operation in ROOTED.values():
        assert operation.run(x, 0, group=alone) is x
        out = np.zeros_like(x)
        assert operation.run(x, 0, group=alone, out=out) is out
        assert_same(out, x)
    assert dist.gather(3.0, 0, group=alone).tolist() == [3.0]


def test_roots_and_reductions() -> None:
    calls: dict[str, tuple[str, Any]] = {
        "gather": ("dst", dist.gather),
        "reduce": ("dst", dist.reduce),
        "scatter": ("src", dist.scatter),
    }
    x = np.zeros(2 * SIZE)
    refused = [
        case(call, f"{name}={peer} is not in the group: pass a rank from 0 to {SIZE - 1}", ValueError, run, x, peer)
        for call, (name, run) in calls.items()
        for peer in (SIZE, -1)
    ]
    refused += [
        case(call, f"{name}=True is not an int", TypeError, run, x, True) for call, (name, run) in calls.items()
    ]
    known = ", ".join(_core.REDUCTION_OF)
    refused += [
        case("reduce", f"op='mean' is not a reduction: pass one of {known}", ValueError, dist.reduce, x, 0, op="mean"),
        case("reduce", f"op='all_sum' is not .* of {known}", ValueError, dist.reduce, x, 0, op="all_sum"),
        case("reduce", f"op=1 is not a str: pass one of {known}", TypeError, dist.reduce, x, 0, op=1),
    ]
    bits = "which is not combined bit by bit: pass integers or bools"
    refused.append(case("reduce", bits, TypeError, dist.reduce, x, 0, op="bor"))
    assert_refused(refused)
    assert {"sum", "max", "min"} <= set(_core.REDUCTION_OF)
    assert {call.partition("_")[2] for call in CALLS} == set(_core.REDUCTION_OF)


def test_rows_that_do_not_divide() -> None:
    shapes = [(), *([(1,), (SIZE + 1, SIZE), (2 * SIZE - 1,)] if SIZE > 1 else [])]
    text = "axis 0 is not divisible by the group's size .*: pad or split x"
    calls = {"all_to_all": dist.all_to_all, "scatter": functools.partial(dist.scatter, src=0)}
    assert_refused([case(call, text, ValueError, run, np.zeros(s)) for call, run in calls.items() for s in shapes])


def test_in_use(world: dist.Group) -> None:
    """A rank that gets no result may read its x meanwhile, and not write to it."""
    needs_peers(WORLD)
    x = np.full(3, float(RANK))
    works = [dist.gather(x, 0, wait=False) for _ in range(2)]
    with pytest.raises(ValueError, match="an array is in use, gather with wait=False reads it"):
        dist.all_sum(x, out=x)
    assert [work.wait().size for work in works] == [3 if RANK else 3 * SIZE] * 2


def test_a_result_that_a_rank_does_not_get() -> None:
    needs_peers(WORLD)
    other, out = (RANK + 1) % SIZE, np.zeros(6 * SIZE)
    text = f"this rank gets no result, dst={other} does: pass out only on rank {other}"
    calls = {"gather": dist.gather, "reduce": dist.reduce}
    cases = [case(call, text, ValueError, run, X, other, out=out) for call, run in calls.items()]
    held = np.zeros(3 * SIZE)
    overlaps = "out overlaps x in part: pass x itself or"
    cases.append(case("all_to_all", overlaps, ValueError, dist.all_to_all, held[SIZE:], out=held[:-SIZE]))
    assert_refused(refused for refused in cases for _ in range(SIZE))  # on every rank
