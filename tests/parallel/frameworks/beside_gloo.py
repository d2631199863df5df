"""Numbers that every rank has of its own, and the comparison of mlxdist's results with gloo's in the same program."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import mlxdist as dist

torch = pytest.importorskip("torch")
c10d = torch.distributed

rank, size = dist.init().rank(), dist.init().size()
several = pytest.mark.skipif(size == 1, reason="one rank has no peers")


def numbers(shape: tuple[int, ...], dtype: str = "float32", seed: int = 0) -> Any:
    """Small whole numbers, other ones on each rank: sums and products of them are exact in every dtype."""
    generator = torch.Generator().manual_seed(1000 * seed + rank)
    made = torch.randint(0, 4, shape, generator=generator)
    return made.to(getattr(torch, dtype))


def dense(x: Any) -> Any:
    return x


def strided(x: Any) -> Any:
    """The same elements, not one after the other."""
    apart = x.new_zeros((*x.shape, 2))[..., 0]
    apart.copy_(x)
    return apart


def same(results: Any, expected: Any) -> None:
    if isinstance(expected, (list, tuple)):
        assert len(results) == len(expected)
        for one, other in zip(results, expected, strict=True):
            same(one, other)
    elif isinstance(expected, torch.Tensor):
        assert results.dtype == expected.dtype
        assert torch.equal(results, expected), (results, expected)
    else:
        assert results == expected


def as_gloo(gloo: Any, call: Callable[..., Any], *layouts: Callable[[Any], Any]) -> None:
    """What ``call`` returns for mlxdist's group must be what it returns for gloo's.

    layouts: of the tensors that it passes on; gloo takes all for dense ones, without a word (torch 2.13).
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of old names
        if not layouts:
            same(call(None), call(gloo))
        for layout in layouts:
            same(call(None, layout), call(gloo, dense))
