"""One operation on a group, as drawn by all ranks, and whether its result is correct.

Integers are exact. Sums of floats that fit into the slots of shared memory have the same bits as a sum in rank order;
others are correct within rounding, and the same on every rank.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from parallel.reference import COMPLEX, HALVES, INTEGERS, NAMES, REALS, WITH_MEAN, calls_of, dtype_of
from parallel.ring import around

import mlxdist as dist

try:
    import mlx.core as mx
except ImportError:
    mx = None

SLOT, LONGEST, OFFSETS = 32768, 2 << 20, 4099  # bytes, bytes, elements
EPSILON = {"float16": 2.0**-11, "bfloat16": 2.0**-8, "float32": 2.0**-24, "float64": 2.0**-53}
EPSILON |= {"complex64": EPSILON["float32"], "complex128": EPSILON["float64"]}
FOR_MLX = ("bool", *INTEGERS, "float16", "float32", "complex64")
PICKS: dict[str, Any] = {
    "all_max": np.maximum,
    "all_min": np.minimum,
    "all_prod": np.multiply,
    "all_band": np.bitwise_and,
    "all_bor": np.bitwise_or,
}


@dataclass(frozen=True)
class Part:
    """A group and its members: ranks of the world, in the order of the group."""

    group: dist.Group
    members: tuple[int, ...]


def numbers(name: str) -> np.ndarray:
    """All arrays are slices of these; there are no zeros, since their signs would matter."""
    random = np.random.default_rng(NAMES.index(name))
    count = LONGEST // dtype_of(name).itemsize + OFFSETS
    if name == "bool":
        return random.integers(0, 2, count).astype(bool)
    if name in INTEGERS:
        made = random.integers(np.iinfo(name).min, np.iinfo(name).max, count, name, endpoint=True)
    else:
        made = (random.standard_normal(count) * 2.0 ** random.integers(-4, 5, count)).astype(dtype_of(name))
        if name in COMPLEX:
            made.imag = random.standard_normal(count)
    made[made == 0] = 1
    return made


@dataclass
class Rank:
    """This rank of the world, and the numbers that it draws from."""

    world: dist.Group
    seed: int
    in_slots: bool = False
    numbers: dict[str, np.ndarray] = field(default_factory=lambda: {name: numbers(name) for name in NAMES})

    def array(self, name: str, count: int, draw: int, rank: int) -> np.ndarray:
        """The input of ``rank`` of the world, without a copy."""
        offset = (draw * 31 + rank * 977) % OFFSETS
        return self.numbers[name][offset : offset + count]


def check_sum(rank: Rank, part: Part, got: np.ndarray, inputs: Sequence[np.ndarray], nbytes: int) -> None:
    """``nbytes`` is the size of a rank's whole input."""
    name = got.dtype.name
    total = inputs[0].astype(np.float32 if name in HALVES else got.dtype)
    for x in inputs[1:]:
        total = total | x if name == "bool" else total + x.astype(total.dtype)
    if name not in (*REALS, *COMPLEX) or (rank.in_slots and nbytes <= SLOT) or len(inputs) == 1:
        assert got.tobytes() == total.astype(got.dtype).tobytes()
        return
    wide = [x.astype(np.complex128 if name in COMPLEX else np.float64) for x in inputs]
    error = np.abs(got.astype(wide[0].dtype) - sum(wide))
    assert np.all(error <= 2 * len(inputs) * EPSILON[name] * sum(np.abs(x) for x in wide))


def check_product(got: np.ndarray, inputs: Sequence[np.ndarray]) -> None:
    """Of floats in 16 bits only that all ranks have the same: such products overflow."""
    name = got.dtype.name
    if name not in HALVES:
        wide = [x.astype(np.complex128 if name in COMPLEX else np.float64) for x in inputs]
        error = np.abs(got.astype(wide[0].dtype) - np.multiply.reduce(wide))
        assert np.all(error <= 4 * len(inputs) * EPSILON[name] * np.multiply.reduce(np.abs(wide)))


def same_bits(part: Part, got: np.ndarray) -> None:
    mine = np.uint32(zlib.crc32(got.tobytes()))
    assert np.all(dist.all_gather(mine, group=part.group) == mine), "ranks got different bits"


Run = Callable[[Rank, Part, "Draw"], int]


@dataclass(frozen=True)
class Draw:
    """What all ranks drew for one operation."""

    name: str
    count: int
    number: int
    way: int  # 0: a new array, 1: out=, 2: in place
    root: int

    def inputs(self, rank: Rank, part: Part, count: int) -> list[np.ndarray]:
        return [rank.array(self.name, count, self.number, member) for member in part.members]


def reduction(call: str) -> Run:
    def run(rank: Rank, part: Part, draw: Draw) -> int:
        if call not in calls_of(draw.name, in_any_order=False):
            return 0
        inputs = draw.inputs(rank, part, draw.count)
        x = inputs[part.group.rank()]
        x = x.copy() if draw.way == 2 else x
        out = (None, np.empty_like(x), x)[draw.way]
        got = getattr(dist, call)(x, group=part.group, out=out)
        assert out is None or got is out
        if call == "all_sum":
            check_sum(rank, part, got, inputs, x.nbytes)
            if x.nbytes > SLOT and draw.name in WITH_MEAN:
                same_bits(part, got)
        elif draw.name == "bool":
            assert np.array_equal(got, (np.any if call in ("all_max", "all_bor") else np.all)(inputs, axis=0))
        elif call == "all_prod" and draw.name in WITH_MEAN:
            check_product(got, inputs)
            same_bits(part, got)
        else:
            wide = [x.astype(np.float32) if draw.name in HALVES else x for x in inputs]
            assert got.tobytes() == PICKS[call].reduce(wide).astype(x.dtype).tobytes()
        return x.nbytes

    return run


def sum_scatter(rank: Rank, part: Part, draw: Draw) -> int:
    size, mine = part.group.size(), part.group.rank()
    n = draw.count // size
    inputs = draw.inputs(rank, part, n * size)
    out = np.empty(n, inputs[0].dtype) if draw.way else None
    got = dist.sum_scatter(inputs[mine], group=part.group, out=out)
    check_sum(rank, part, got, [x[mine * n : (mine + 1) * n] for x in inputs], inputs[0].nbytes)
    return inputs[0].nbytes


def all_gather(rank: Rank, part: Part, draw: Draw) -> int:
    inputs = draw.inputs(rank, part, draw.count // part.group.size())
    whole = np.concatenate(inputs)
    got = dist.all_gather(inputs[part.group.rank()], group=part.group, out=np.empty_like(whole) if draw.way else None)
    assert got.tobytes() == whole.tobytes()
    return whole.nbytes


def broadcast(rank: Rank, part: Part, draw: Draw) -> int:
    inputs, root = draw.inputs(rank, part, draw.count), draw.root % part.group.size()
    x = inputs[part.group.rank()]
    x = x.copy() if draw.way == 2 else x
    got = dist.broadcast(x, root, group=part.group, out=(None, np.empty_like(x), x)[draw.way])
    assert got.tobytes() == inputs[root].tobytes()
    return x.nbytes


def barrier(rank: Rank, part: Part, draw: Draw) -> int:
    dist.barrier(group=part.group)
    return 0


def messages(rank: Rank, part: Part, draw: Draw) -> int:
    """Send to the next rank, receive from the previous one."""
    group = part.group
    if group.size() == 1:
        return 0
    inputs = draw.inputs(rank, part, draw.count)
    x, before = inputs[group.rank()], inputs[group.rank() - 1]
    got = around(
        group,
        lambda dst: dist.send(x, dst, group=group),
        lambda src: (
            dist.recv(x.shape, x.dtype, src, group=group)
            if draw.way
            else dist.recv_like(x, src, group=group, out=np.empty_like(x))
        ),
    )
    assert got.tobytes() == before.tobytes()
    return x.nbytes


def with_mlx(rank: Rank, part: Part, draw: Draw) -> int:
    if mx is None or draw.name not in FOR_MLX or not draw.count:
        return 0
    inputs = draw.inputs(rank, part, draw.count)
    x = mx.array(inputs[part.group.rank()])
    total, most = dist.all_sum(x, group=part.group), dist.all_max(x, group=part.group)
    mx.eval(total + most, total, most)
    check_sum(rank, part, np.array(total), inputs, inputs[0].nbytes)
    return 2 * inputs[0].nbytes


ON_THREADS: tuple[Run, ...] = (
    *(reduction(call) for call in ("all_sum", "all_sum", *PICKS)),
    sum_scatter,
    all_gather,
    broadcast,
    barrier,
    messages,
)
OPERATIONS = (*ON_THREADS, with_mlx)
