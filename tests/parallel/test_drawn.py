"""Operations drawn by Hypothesis: layouts, dtypes, shapes around the size of a slot, and groups."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hypothesis import strategies as st
from parallel.alike import drawn
from parallel.drawn import SLOT
from parallel.providers import negative, read_only, strided, unaligned
from parallel.reference import CALLS, NAMES, assert_same, calls_of, dtype_of, long, reduced, values
from parallel.ring import around

import mlxdist as dist
from mlxdist import _core

GROUPS = 6
LAYOUTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "contiguous": np.copy,
    "strided": strided,
    "negative strides": negative,
    "Fortran order": lambda x: np.array(x, order="F"),
    "unaligned": unaligned,
    "read-only": read_only,
}
WAYS = ("new", "out", "unaligned out", "in place")


def test_the_table_of_types_is_whole() -> None:
    assert set(NAMES) == set(_core.DTYPES)


@st.composite
def shapes(draw: st.DrawFn, name: str) -> tuple[int, ...]:
    """Small shapes of every number of dimensions; some with about as many bytes as fit into a slot; empty ones."""
    if draw(st.integers(0, 3)):
        return tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    fits = SLOT // dtype_of(name).itemsize
    return (long(fits + draw(st.integers(-1, 1))), *draw(st.sampled_from(((), (1,)))))


@st.composite
def cases(draw: st.DrawFn) -> dict[str, Any]:
    """One operation."""
    name = draw(st.sampled_from(NAMES))
    return {
        "name": name,
        "shape": draw(shapes(name)),
        "layout": draw(st.sampled_from(sorted(LAYOUTS))),
        "way": draw(st.sampled_from(WAYS)),
        "number": draw(st.integers(0, 2**16)),
    }


# The groups in which the examples run, created once, each with its members in order.
_groups: list[tuple[dist.Group, list[int]]] = []


def groups(world: dist.Group) -> list[tuple[dist.Group, list[int]]]:
    everybody = list(range(world.size()))
    if not _groups:
        _groups.append((world, everybody))
    while len(_groups) < GROUPS:
        random = np.random.default_rng(len(_groups))
        colors, keys = random.integers(0, 2, world.size()), random.permutation(world.size())
        mine = [rank for rank in everybody if colors[rank] == colors[world.rank()]]
        part = world.split(int(colors[world.rank()]), int(keys[world.rank()]))
        _groups.append((part, sorted(mine, key=lambda rank: keys[rank])))
    return _groups


class Example:
    """A case in a group: the input of every rank, and where the result goes."""

    def __init__(self, world: dist.Group, case: dict[str, Any], shape: tuple[int, ...] | None = None) -> None:
        self.group, members = groups(world)[case["number"] % GROUPS]
        self.case, self.root = case, case["number"] % self.group.size()
        self.rank, self.size = self.group.rank(), self.group.size()
        self.inputs = [values(case["name"], case["shape"] if shape is None else shape, rank) for rank in members]
        self.x = LAYOUTS[case["layout"]](self.inputs[self.rank])

    def run(self, call: Callable[..., Any], expected: np.ndarray, *arguments: Any, in_place: bool = True) -> None:
        before, way, out = self.x.tobytes(), self.case["way"], None
        if way == "in place" and in_place and self.x.flags.c_contiguous and self.x.flags.writeable:
            out = self.x
        elif way != "new":
            out = (unaligned if way == "unaligned out" else np.copy)(np.zeros_like(expected, order="C"))
        result = call(self.x, *arguments, group=self.group, out=out)
        assert out is None or result is out
        assert_same(result, expected)
        assert out is self.x or self.x.tobytes() == before


def rows(case: dict[str, Any], world: dist.Group) -> tuple[int, ...]:
    """A shape whose first axis is divisible by the size of the group."""
    size = groups(world)[case["number"] % GROUPS][0].size()
    shape = case["shape"] or (1,)
    return (shape[0] // size * size if shape[0] >= 8 else shape[0] * size, *shape[1:])


@drawn(case=cases(), number=st.integers(0, len(CALLS) - 1))
def test_reductions(world: dist.Group, case: dict[str, Any], number: int) -> None:
    example, calls = Example(world, case), calls_of(case["name"])
    call = calls[number % len(calls)]
    example.run(CALLS[call], reduced(call, example.inputs))


@drawn(case=cases())
def test_sum_scatter(world: dist.Group, case: dict[str, Any]) -> None:
    example = Example(world, case, rows(case, world))
    total = reduced("all_sum", example.inputs)
    n = total.shape[0] // example.size
    expected = total[example.rank * n : (example.rank + 1) * n]
    example.run(dist.sum_scatter, expected, in_place=example.size == 1)


@drawn(case=cases())
def test_all_gather(world: dist.Group, case: dict[str, Any]) -> None:
    example = Example(world, case)
    whole = np.concatenate([np.atleast_1d(x) for x in example.inputs])
    example.run(dist.all_gather, whole, in_place=False)


@drawn(case=cases())
def test_broadcast(world: dist.Group, case: dict[str, Any]) -> None:
    example = Example(world, case)
    example.run(dist.broadcast, example.inputs[example.root], example.root)


@drawn(case=cases())
def test_messages(world: dist.Group, case: dict[str, Any]) -> None:
    """Around a ring, with recv and recv_like."""
    example = Example(world, case)
    if example.size == 1:
        return
    x, out = example.x, None if case["way"] == "new" else np.zeros(case["shape"], dtype_of(case["name"]))
    got = around(
        example.group,
        lambda dst: dist.send(x, dst, group=example.group),
        lambda src: (
            dist.recv(x.shape, x.dtype, src, group=example.group)
            if case["number"] % 2
            else dist.recv_like(x, src, group=example.group, out=out)
        ),
    )
    assert_same(got, example.inputs[example.rank - 1])
