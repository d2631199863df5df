"""The cases that are measured: an operation, a dtype and a number of elements; and the correct result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# The values of --op: the operation, and whether it writes to its input.
OPERATIONS = {
    "all_sum": ("all_sum", False),
    "all_sum_in_place": ("all_sum", True),
    "all_gather": ("all_gather", False),
    "sum_scatter": ("sum_scatter", False),
    "broadcast": ("broadcast", True),
    "all_to_all": ("all_to_all", False),
    "gather": ("gather", False),
    "scatter": ("scatter", False),
    "reduce": ("reduce", False),
}
ROOTED = ("broadcast", "gather", "scatter", "reduce")  # the root is rank 0
PARTED = ("sum_scatter", "scatter", "all_to_all")  # an input has a part for each rank
DTYPES = ("float32", "float16", "bfloat16")
# All integers up to these are exact in the dtype, so their sums are exact in any order.
EXACT = {"float32": 1 << 24, "float16": 1 << 11, "bfloat16": 1 << 8}
BLOCK = 1 << 20  # elements that are created and compared at a time
PERIOD = 251  # a prime, so that blocks and ranks begin with different values


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        operation: a function of mlxdist.
        in_place: the result overwrites the input.
        dtype: one of DTYPES.
        count: elements in the input of each rank.
        size: number of ranks.
    """

    operation: str
    in_place: bool
    dtype: np.dtype[Any]
    count: int
    size: int

    @property
    def nbytes(self) -> int:
        """Bytes in the input of each rank."""
        return self.count * self.dtype.itemsize

    @property
    def out_count(self) -> int:
        """Elements in the result of each rank."""
        if self.operation in ("all_gather", "gather"):
            return self.count * self.size
        return self.count // self.size if self.operation in ("sum_scatter", "scatter") else self.count

    def has_result(self, rank: int) -> bool:
        """Whether this rank gets one."""
        return rank == 0 or self.operation not in ("gather", "reduce")

    @property
    def is_sum(self) -> bool:
        """Whether elements are added."""
        return self.operation in ("all_sum", "sum_scatter", "reduce")

    @property
    def moved_nbytes(self) -> float:
        """Bytes that a rank reads and writes on average, if every byte goes through memory once."""
        if self.operation == "broadcast":
            return float(self.nbytes)  # the root reads, all others write
        inputs = 1 if self.operation == "scatter" else self.size
        results = sum(map(self.has_result, range(self.size)))
        return (inputs * self.nbytes + results * self.out_count * self.dtype.itemsize) / self.size


def lengths(smallest: int, largest: int) -> list[int]:
    """The powers of 4 in a range: bytes of each rank's input."""
    return [4**power for power in range(1, 30) if max(4, smallest) <= 4**power <= largest]


def cases(name: str, dtype: np.dtype[Any], smallest: int, largest: int, size: int) -> list[Case]:
    """The cases of one of OPERATIONS, a length each."""
    operation, in_place = OPERATIONS[name]
    parts = size if operation in PARTED else 1
    return [
        Case(operation, in_place, dtype, max(1, round(nbytes / dtype.itemsize / parts)) * parts, size)
        for nbytes in lengths(smallest, largest)
    ]


def _period(case: Case) -> int:
    """Small enough that sums over all ranks are exact."""
    return max(2, min(PERIOD, EXACT[case.dtype.name] // case.size))


def _input(case: Case, rank: int, start: int, stop: int) -> np.ndarray:
    """Elements of the input of ``rank``: small integers that differ between ranks and positions."""
    return (np.arange(start, stop, dtype=np.int64) * 7 + rank * 31) % _period(case)


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def fill(case: Case, rank: int, x: np.ndarray) -> None:
    """Fill ``x`` with the input of ``rank``."""
    for start, stop in _blocks(case.count):
        x[start:stop] = _input(case, rank, start, stop).astype(case.dtype)


def _expected(case: Case, rank: int, start: int, stop: int) -> np.ndarray:
    if case.operation == "broadcast":
        return _input(case, 0, start, stop)
    if case.operation == "scatter":
        return _input(case, 0, rank * case.out_count + start, rank * case.out_count + stop)
    if case.operation == "all_to_all":
        positions, part = np.arange(start, stop), case.count // case.size
        return ((rank * part + positions % part) * 7 + positions // part * 31) % _period(case)
    if case.operation in ("all_gather", "gather"):
        positions = np.arange(start, stop)
        return (positions % case.count * 7 + positions // case.count * 31) % _period(case)
    first = case.out_count * rank if case.operation == "sum_scatter" else 0
    return sum(
        (_input(case, other, first + start, first + stop) for other in range(case.size)),
        start=np.zeros(stop - start, np.int64),
    )


def count_wrong(case: Case, rank: int, result: np.ndarray) -> int:
    """The number of elements in the result of ``rank`` that are not exactly those that NumPy computes."""
    if not case.has_result(rank):
        return 0
    return sum(
        int(np.count_nonzero(result[start:stop].astype(np.float64) != _expected(case, rank, start, stop)))
        for start, stop in _blocks(case.out_count)
    )
