"""Ranks that make different calls: MismatchError on every rank, every time, and other groups are unaffected."""

from __future__ import annotations

import os
import re
from collections.abc import Callable

import numpy as np
import pytest
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import _core

Call = Callable[[dist.Group], object]
REPETITIONS = int(os.environ.get("MLXDIST_TEST_REPETITIONS", "5"))


def ones(count: int | tuple[int, ...] = 12, dtype: str = "f4") -> np.ndarray:
    return np.ones(count, dtype)


LARGE = 96_000  # does not fit into a slot of shared memory


def all_sum(count: int | tuple[int, ...] = 12, dtype: str = "f4") -> Call:
    return lambda group: dist.all_sum(ones(count, dtype), group=group)


def all_max(count: int = 12) -> Call:
    return lambda group: dist.all_max(ones(count), group=group)


def all_min(count: int = 12) -> Call:
    return lambda group: dist.all_min(ones(count), group=group)


def all_gather(count: int = 12, dtype: str = "f4") -> Call:
    return lambda group: dist.all_gather(ones(count, dtype), group=group)


def sum_scatter(count: int = 12, dtype: str = "f4") -> Call:
    return lambda group: dist.sum_scatter(ones(count, dtype), group=group)


def broadcast(src: int, count: int = 12) -> Call:
    return lambda group: dist.broadcast(ones(count), src, group=group)


def all_to_all(count: int = 12) -> Call:
    return lambda group: dist.all_to_all(ones(count), group=group)


def gather(dst: int, count: int = 12) -> Call:
    return lambda group: dist.gather(ones(count), dst, group=group)


def scatter(src: int, count: int = 12) -> Call:
    return lambda group: dist.scatter(ones(count), src, group=group)


def reduce(dst: int, op: str = "sum", count: int = 12) -> Call:
    return lambda group: dist.reduce(ones(count), dst, op=op, group=group)


def barrier(group: dist.Group) -> None:
    dist.barrier(group=group)


def split(group: dist.Group) -> dist.Group:
    return group.split(0)


# name: what rank 0 calls, what the others call, and how the error describes both
CASES: dict[str, tuple[Call, Call, str, str]] = {
    "reduction": (all_sum(), all_max(), "all_sum float32 (12,)", "all_max float32 (12,)"),
    "reduction, large": (
        all_min(LARGE),
        all_max(LARGE),
        f"all_min float32 ({LARGE},)",
        f"all_max float32 ({LARGE},)",
    ),
    "dtype": (all_sum(dtype="i4"), all_sum(dtype="u4"), "all_sum int32 (12,)", "all_sum uint32 (12,)"),
    "dtype and length": (all_gather(12, "f8"), all_gather(24), "all_gather float64 (12,)", "all_gather float32 (24,)"),
    "count": (all_sum(12), all_sum(13), "all_sum float32 (12,)", "all_sum float32 (13,)"),
    "count, large": (
        all_sum(LARGE),
        all_sum(LARGE + 12),
        f"all_sum float32 ({LARGE},)",
        f"all_sum float32 ({LARGE + 12},)",
    ),
    "small and large": (all_sum(), all_sum(LARGE), "all_sum float32 (12,)", f"all_sum float32 ({LARGE},)"),
    "nothing and something": (all_sum(0), all_sum(12), "all_sum float32 (0,)", "all_sum float32 (12,)"),
    "shape": (all_sum((3, 4)), all_sum((3, 5)), "all_sum float32 (3, 4)", "all_sum float32 (3, 5)"),
    "gathered": (all_gather(12), all_gather(13), "all_gather float32 (12,)", "all_gather float32 (13,)"),
    "scattered": (sum_scatter(12), sum_scatter(24), "sum_scatter float32 (12,)", "sum_scatter float32 (24,)"),
    "root": (broadcast(0), broadcast(1), "broadcast float32 (12,) from rank 0", "broadcast float32 (12,) from rank 1"),
    "root, large": (
        broadcast(1, LARGE),
        broadcast(0, LARGE),
        f"broadcast float32 ({LARGE},) from rank 1",
        f"broadcast float32 ({LARGE},) from rank 0",
    ),
    "exchanged": (all_to_all(12), all_to_all(24), "all_to_all float32 (12,)", "all_to_all float32 (24,)"),
    "gather, root": (gather(0), gather(1), "gather float32 (12,) to rank 0", "gather float32 (12,) to rank 1"),
    "scatter, root": (scatter(0), scatter(1), "scatter float32 (12,) from rank 0", "scatter float32 (12,) from rank 1"),
    "reduce, root": (reduce(0), reduce(1), "reduce sum float32 (12,) to rank 0", "reduce sum float32 (12,) to rank 1"),
    "reduce, op, large": (
        reduce(1, "max", LARGE),
        reduce(1, "min", LARGE),
        f"reduce max float32 ({LARGE},) to rank 1",
        f"reduce min float32 ({LARGE},) to rank 1",
    ),
    "gather, large": (
        gather(0, LARGE),
        gather(0, LARGE + 12),
        f"gather float32 ({LARGE},) to rank 0",
        f"gather float32 ({LARGE + 12},) to rank 0",
    ),
    "large exchange and scatter": (
        all_to_all(LARGE),
        scatter(1, LARGE),
        f"all_to_all float32 ({LARGE},)",
        f"scatter float32 ({LARGE},) from rank 1",
    ),
    "sum and gather": (all_sum(), all_gather(), "all_sum float32 (12,)", "all_gather float32 (12,)"),
    "sum and scatter": (all_sum(), sum_scatter(), "all_sum float32 (12,)", "sum_scatter float32 (12,)"),
    "sum and broadcast": (all_sum(), broadcast(0), "all_sum float32 (12,)", "broadcast float32 (12,) from rank 0"),
    "sum and barrier": (all_sum(), barrier, "all_sum float32 (12,)", "barrier"),
    "sum and split": (all_sum(), split, "all_sum float32 (12,)", "split"),
    "large sum and split": (all_sum(LARGE), split, f"all_sum float32 ({LARGE},)", "split"),
    "gather and broadcast": (all_gather(), broadcast(0), "all_gather float32 (12,)", "broadcast float32 (12,) from"),
    "scatter and split": (sum_scatter(), split, "sum_scatter float32 (12,)", "split"),
    "barrier and split": (barrier, split, "barrier", "split"),
}


def assert_broken(group: dist.Group, first: str) -> None:
    """Any call on it raises the first error again, without waiting for anyone."""
    for call in (all_sum(), all_sum(LARGE), all_gather(), gather(0), all_to_all(), broadcast(0), barrier, split):
        with pytest.raises(dist.MismatchError) as caught:
            call(group)
        assert "this group was broken by an earlier error: " in str(caught.value)
        assert first.partition("] ")[2][:200] in str(caught.value)


@pytest.mark.parametrize("name", CASES)
def test_every_rank_is_told(world: dist.Group, name: str) -> None:
    needs_peers(world)
    mine, others, words, others_words = CASES[name]
    size, rank = world.size(), world.rank()
    sibling = world.split(0)
    for repetition in range(3):
        odd = repetition % size  # the rank that disagrees
        group = world.split(0)
        for _ in range(repetition):
            dist.all_sum(ones(), group=group)
        with pytest.raises(dist.MismatchError) as caught:
            (mine if rank == odd else others)(group)
        text = str(caught.value)
        assert f"the ranks differ in call {repetition + 1} on this group of {size}:" in text
        assert re.search(rf"^  rank {odd}: {re.escape(words)}", text, re.MULTILINE), text
        rest = ", ".join(str(other) for other in range(size) if other != odd)
        assert re.search(rf"^  rank {rest}: {re.escape(others_words)}", text, re.MULTILINE), text
        assert_broken(group, text)
        assert (dist.all_sum(ones(), group=sibling) == size).all()
        assert (dist.all_sum(ones(LARGE), group=world) == size).all()


@pytest.mark.parametrize("name", CASES)
def test_every_time(world: dist.Group, name: str) -> None:
    needs_peers(world)
    mine, others, _, _ = CASES[name]
    for repetition in range(REPETITIONS):
        group = world.split(0)
        with pytest.raises(dist.MismatchError):
            (mine if world.rank() == repetition % world.size() else others)(group)
    assert dist.all_sum(1) == world.size()


def test_another_order(world: dist.Group) -> None:
    """The text shows the first call in which the ranks differ."""
    needs_peers(world)
    group = world.split(0)
    calls = [all_sum(), all_gather(), barrier] if world.rank() else [all_sum(), barrier, all_gather()]
    dist.barrier(group=group)
    calls[0](group)
    with pytest.raises(dist.MismatchError, match="the ranks differ in call 3") as caught:
        calls[1](group)
    with pytest.raises(dist.MismatchError, match="by an earlier error: the ranks differ in call 3"):
        calls[2](group)
    assert "\n  rank 0: barrier" in str(caught.value)


def test_one_rank_lets_go_of_the_group(world: dist.Group) -> None:
    """The others do not wait for it."""
    needs_peers(world)
    if _core.local_size()[0] < world.size():
        pytest.skip("ranks of different hosts do not see it")
    group = world.split(0)
    dist.barrier(group=group)
    if world.rank() == world.size() - 1:
        del group
    else:
        with pytest.raises(dist.MismatchError, match="has ended or freed this group"):
            dist.all_sum(ones(), group=group)
    assert dist.all_sum(1) == world.size()


def test_groups_of_some_ranks(world: dist.Group) -> None:
    """A mismatch in one half does not reach the other."""
    needs_peers(world)
    half = world.split(world.rank() % 2)
    if world.rank() % 2 == 0 and half.size() > 1:
        with pytest.raises(dist.MismatchError, match="on this group of 2"):
            (all_sum() if half.rank() else barrier)(half)
    else:
        assert (dist.all_sum(ones(), group=half) == half.size()).all()
    assert dist.all_sum(1) == world.size()


def test_shapes_of_as_many_elements_agree(world: dist.Group) -> None:
    """As in MPI and MLX: a reduction is defined by the number of elements, not the shape."""
    shape = (3, 4) if world.rank() else (4, 3)
    assert (dist.all_sum(np.ones(shape, "f4")) == world.size()).all()


# what is sent, what is expected, and how the error describes both
MESSAGES = {
    "dtype": (ones(3, "i4"), ones(3, "f4"), "12 bytes of int32", "12 of float32"),
    "length": (ones(3), ones(4), "12 bytes of float32", "16 of float32"),
    "shorter": (ones(4), ones(0), "16 bytes of float32", "0 of float32"),
    "large, dtype": (ones(LARGE, "i8"), ones(LARGE, "f8"), f"{8 * LARGE} bytes of int64", f"{8 * LARGE} of float64"),
    "large, length": (ones(LARGE), ones(3), f"{4 * LARGE} bytes of float32", "12 of float32"),
}


@pytest.mark.parametrize("name", MESSAGES)
def test_messages(world: dist.Group, name: str) -> None:
    """The receiver gets an error, and the next message arrives normally."""
    needs_peers(world)
    sent, expected, words, expected_words = MESSAGES[name]
    last = world.size() - 1
    for _ in range(10):
        if world.rank() == 0:
            dist.send(sent, last)
            dist.send(ones(), last)
        elif world.rank() == last:
            with pytest.raises(dist.MismatchError) as caught:
                dist.recv_like(expected, 0)
            assert f"rank 0 sent {words}, rank {last} expected {expected_words}" in str(caught.value)
            assert (dist.recv_like(ones(), 0) == 1).all()
    assert dist.all_sum(1) == world.size()


def test_messages_in_another_order(world: dist.Group) -> None:
    """Two messages of equal length and different dtype: neither is mistaken for the other."""
    needs_peers(world)
    last = world.size() - 1
    if world.rank() == 0:
        dist.send(ones(3, "i4"), last)
        dist.send(ones(3, "f4"), last)
    elif world.rank() == last:
        for dtype in ("f4", "i4"):
            with pytest.raises(dist.MismatchError):
                dist.recv(3, dtype, 0)
    assert dist.all_sum(1) == world.size()
