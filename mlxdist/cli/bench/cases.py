"""What is measured: an operation on so many elements of a dtype; and what its result must be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

# What --op may name: the operation, and whether it writes to its input.
OPERATIONS = {
    "all_sum": ("all_sum", False),
    "all_sum_in_place": ("all_sum", True),
    "all_gather": ("all_gather", False),
    "sum_scatter": ("sum_scatter", False),
    "broadcast": ("broadcast", True),
}
DTYPES = ("float32", "float16", "bfloat16")
# Up to these every integer is a number of the dtype, so that sums of integers are exact, in whatever order.
EXACT = {"float32": 1 << 24, "float16": 1 << 11, "bfloat16": 1 << 8}
BLOCK = 1 << 20  # elements that are made and compared at a time
KNOWN_FROM = 251  # a prime, so that no two blocks or ranks begin alike


@dataclass(frozen=True)
class Case:
    """One operation at one size.

    Attributes:
        operation: a function of mlxdist.
        in_place: its result goes to its input.
        dtype: one of DTYPES.
        count: elements that each rank gives.
        size: ranks.
    """

    operation: str
    in_place: bool
    dtype: np.dtype[Any]
    count: int
    size: int

    @property
    def nbytes(self) -> int:
        """What each rank gives."""
        return self.count * self.dtype.itemsize

    @property
    def out_count(self) -> int:
        """Elements of the result."""
        if self.operation == "all_gather":
            return self.count * self.size
        return self.count // self.size if self.operation == "sum_scatter" else self.count

    @property
    def is_sum(self) -> bool:
        """Whether anything is added."""
        return self.operation in ("all_sum", "sum_scatter")

    @property
    def moved(self) -> float:
        """Bytes that a rank must at least read and write, in the mean, where every byte goes through memory once."""
        if self.operation == "broadcast":
            return float(self.nbytes)  # the root reads, all others write
        return float(self.nbytes + self.out_count * self.dtype.itemsize)


def cases(name: str, dtype: np.dtype[Any], smallest: int, largest: int, size: int) -> list[Case]:
    """Those of an operation of OPERATIONS, from 4 bytes on, each four times as long as the one before."""
    operation, in_place = OPERATIONS[name]
    parts = size if operation == "sum_scatter" else 1
    lengths = [4**power for power in range(1, 30) if max(4, smallest) <= 4**power <= largest]
    return [
        Case(operation, in_place, dtype, max(1, round(nbytes / dtype.itemsize / parts)) * parts, size)
        for nbytes in lengths
    ]


def _given(case: Case, rank: int, start: int, stop: int) -> np.ndarray:
    """Elements of what ``rank`` gives: small integers that tell ranks and places apart."""
    apart = max(2, min(KNOWN_FROM, EXACT[case.dtype.name] // case.size))
    return (np.arange(start, stop, dtype=np.int64) * 7 + rank * 31) % apart


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + BLOCK, count)) for start in range(0, count, BLOCK))


def fill(case: Case, rank: int, x: np.ndarray) -> None:
    """Give ``x`` the data of ``rank``."""
    for start, stop in _blocks(case.count):
        x[start:stop] = _given(case, rank, start, stop).astype(case.dtype)


def _expected(case: Case, rank: int, start: int, stop: int) -> np.ndarray:
    if case.operation == "broadcast":
        return _given(case, 0, start, stop)
    if case.operation == "all_gather":
        places = np.arange(start, stop)
        apart = max(2, min(KNOWN_FROM, EXACT[case.dtype.name] // case.size))
        return (places % case.count * 7 + places // case.count * 31) % apart
    first = case.out_count * rank if case.operation == "sum_scatter" else 0
    return sum(
        (_given(case, other, first + start, first + stop) for other in range(case.size)),
        start=np.zeros(stop - start, np.int64),
    )


def wrong(case: Case, rank: int, result: np.ndarray) -> int:
    """How many elements of the result of ``rank`` are not exactly what NumPy makes of the same data."""
    return sum(
        int(np.count_nonzero(result[start:stop].astype(np.float64) != _expected(case, rank, start, stop)))
        for start, stop in _blocks(case.out_count)
    )
