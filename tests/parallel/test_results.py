"""The memory of results: not shared with anything else, and taken from the system only once."""

from __future__ import annotations

import resource
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlxdist as dist
from mlxdist import _core

LENGTHS = (1, 1000, 40_000, 300_000, 3_000_000)  # of float32: around every threshold
CALLS = 20


def test_results_keep_their_values(world: dist.Group) -> None:
    """Even while others of the same length come and go."""
    kept = []
    for k in range(5):
        for length in LENGTHS:
            kept.append((dist.all_sum(np.full(length, k, np.float32)), world.size() * k))
            dist.all_sum(np.full(length, -1, np.float32))
    if world.size() > 1:
        assert all((result == value).all() for result, value in kept)
        assert len({result.ctypes.data for result, _ in kept}) == len(kept)


def test_a_view_keeps_its_memory(world: dist.Group) -> None:
    """And the result can be freed."""
    view = dist.all_gather(np.full(300_000, 7, np.float32))[5:10]
    for _ in range(3):
        dist.all_gather(np.zeros(300_000, np.float32))
    assert (view == 7).all()


def test_results_begin_on_a_cache_line(world: dist.Group) -> None:
    """JAX copies arrays that are not aligned."""
    if world.size() > 1:
        assert all(dist.all_sum(np.zeros(length, np.int8)).ctypes.data % 64 == 0 for length in LENGTHS)


def faults_of(operation: Callable[..., np.ndarray], x: np.ndarray, arguments: dict[str, Any]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(CALLS):
        result = operation(x, **arguments)
    assert result is not None
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.parametrize("length", LENGTHS[2:])
@pytest.mark.parametrize(
    ("operation", "into"),
    [
        (operation, into)
        for operation in (dist.all_sum, dist.all_gather, dist.sum_scatter, dist.broadcast)
        for into in ("out", "in place", "a new result")
        if into != "in place" or operation in (dist.all_sum, dist.broadcast)
    ],
)
def test_no_fresh_pages(operation: Callable[..., np.ndarray], into: str, length: int, world: dist.Group) -> None:
    """After the first calls no fresh pages are needed: a page fault costs more than the work on the page."""
    if world.size() == 1:
        pytest.skip("a group of one gives x itself")
    if _core.local_size()[0] < world.size():
        pytest.skip("libmpi's own memory comes and goes")
    x = np.ones(length // world.size() * world.size(), np.float32)
    arguments = {"src": 0} if operation is dist.broadcast else {}
    if into != "a new result":
        arguments["out"] = x if into == "in place" else operation(x, **arguments).copy()
    for _ in range(4):
        operation(x, **arguments)
    # The least of some rounds: in the first, the memory of other results may still be given back.
    faults = min(faults_of(operation, x, arguments) for _ in range(3))
    assert faults < CALLS, f"{faults} page faults in {CALLS} calls"
