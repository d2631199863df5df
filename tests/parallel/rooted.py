"""The operations whose ranks get different results: what each gets, from the arrays of all."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from parallel.reference import CALLS, calls_of, reduced

import mlxdist as dist


@dataclass(frozen=True)
class Rooted:
    """An operation.

    Attributes:
        run: calls it with an array, the root, and keywords.
        expected: of the arrays of all ranks, a rank and the root; None: it gets its x back.
        is_parted: x consists of a part for each rank.
    """

    run: Callable[..., Any]
    expected: Callable[[Sequence[np.ndarray], int, int], np.ndarray | None]
    is_parted: bool = False

    def shape(self, shape: tuple[int, ...], size: int) -> tuple[int, ...]:
        """One that it can take."""
        return (size * shape[0] if shape else size, *shape[1:]) if self.is_parted else shape


def all_to_all(x: Any, root: int, **keywords: Any) -> Any:
    return dist.all_to_all(x, **keywords)


def exchanged(xs: Sequence[np.ndarray], rank: int, root: int) -> np.ndarray:
    return np.concatenate([np.split(x, len(xs))[rank] for x in xs])


def gathered(xs: Sequence[np.ndarray], rank: int, root: int) -> np.ndarray | None:
    return np.concatenate([np.atleast_1d(x) for x in xs]) if rank == root else None


def scattered(xs: Sequence[np.ndarray], rank: int, root: int) -> np.ndarray:
    return np.split(xs[root], len(xs))[rank]


def reduced_to(call: str, xs: Sequence[np.ndarray], rank: int, root: int) -> np.ndarray | None:
    return reduced(call, xs) if rank == root else None


ROOTED = {
    "all_to_all": Rooted(all_to_all, exchanged, is_parted=True),
    "gather": Rooted(dist.gather, gathered),
    "scatter": Rooted(dist.scatter, scattered, is_parted=True),
    **{
        f"reduce {call}": Rooted(
            functools.partial(dist.reduce, op=call.partition("_")[2]), functools.partial(reduced_to, call)
        )
        for call in CALLS
    },
}


def rooted_of(name: str) -> list[str]:
    """Those that a dtype has."""
    return [call for call in ROOTED if call.removeprefix("reduce ") in (*calls_of(name), *ROOTED)]
