"""Groups: their ranks and order, that they communicate independently, and that they can be made and dropped at will."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest
from parallel.reference import seeded
from parallel.ring import around, needs_peers

import mlxdist as dist


def members(group: dist.Group, world: dist.Group) -> list[int]:
    """The world ranks of the group's members."""
    return [int(rank) for rank in np.atleast_1d(dist.all_gather(world.rank(), group=group))]


def assert_communicates(group: dist.Group) -> None:
    """Every operation, checked against the ranks of this group only."""
    size, rank = group.size(), group.rank()
    ranks = np.arange(size)
    assert dist.all_sum(rank, group=group) == ranks.sum()
    assert dist.all_max(rank, group=group) == size - 1
    assert dist.all_min(rank - 5, group=group) == -5
    np.testing.assert_array_equal(dist.all_gather(np.array([rank]), group=group), ranks)
    np.testing.assert_array_equal(dist.sum_scatter(ranks, group=group), [size * rank])
    assert dist.broadcast(rank, size - 1, group=group) == size - 1
    dist.barrier(group=group)
    if size > 1:
        got = around(
            group,
            lambda dst: dist.send(rank, dst, group=group),
            lambda src: (dist.recv((), int, src, group=group), src),
        )
        assert got[0] == got[1]


def test_colors(world: dist.Group) -> None:
    size, rank = world.size(), world.rank()
    part = world.split(rank % 2)
    assert type(part) is dist.Group
    assert members(part, world) == list(range(rank % 2, size, 2))
    assert part.rank() == rank // 2
    assert part.size() == len(range(rank % 2, size, 2))
    assert_communicates(part)
    assert_communicates(world)


@pytest.mark.parametrize(
    "keys", [(3, 2, 1, 0), (7, 7, 7, 7), (5, 0, 5, 0), (2**31 - 1, 1, 2**31 - 2, 0)], ids=lambda keys: str(keys)
)
def test_keys_order(world: dist.Group, keys: tuple[int, ...]) -> None:
    """Equal keys keep the present order."""
    part = world.split(2**31 - 1, keys[world.rank()])
    assert members(part, world) == sorted(range(world.size()), key=lambda rank: keys[rank])
    assert_communicates(part)


def test_numpy_integers_are_integers(world: dist.Group) -> None:
    part = world.split(np.int64(1), np.int8(-world.rank() + 5))
    assert members(part, world) == list(range(world.size()))[::-1]


def test_without_keys_the_order_stays(world: dist.Group) -> None:
    backwards = world.split(0, world.size() - world.rank())
    for part in (backwards.split(3), backwards.split(3, -1), backwards.split(color=3, key=-1)):
        assert members(part, world) == list(range(world.size()))[::-1]


def test_nested(world: dist.Group) -> None:
    rank = world.rank()
    half = world.split(rank // 2)
    quarter = half.split(rank % 2)
    assert members(half, world) == [other for other in range(world.size()) if other // 2 == rank // 2]
    assert members(quarter, world) == [rank]
    again = quarter.split(0)
    for group in (quarter, half, again, world):
        assert_communicates(group)


def test_parts_do_not_wait_for_each_other(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    for repeat in range(1 + 4 * (world.rank() % 2)):
        assert dist.all_sum(repeat, group=part) == repeat * part.size()
    assert dist.all_sum(1) == world.size()


def test_a_group_of_one_keeps_what_it_has(world: dist.Group) -> None:
    alone = world.split(world.rank())
    x = np.arange(6, dtype=np.float32)[::2]
    for result in (
        dist.all_sum(x, group=alone),
        dist.all_max(x, group=alone),
        dist.all_min(x, group=alone),
        dist.all_gather(x, group=alone),
        dist.sum_scatter(x, group=alone),
        dist.broadcast(x, 0, group=alone),
    ):
        assert result is x
    out = np.zeros(3, np.float32)
    for run in (dist.all_sum, dist.all_max, dist.all_min, dist.all_gather, dist.sum_scatter):
        out[:] = 0
        assert run(x, group=alone, out=out) is out  # type: ignore[operator]
        np.testing.assert_array_equal(out, x)
    out[:] = 0
    assert dist.broadcast(x, 0, group=alone, out=out) is out
    np.testing.assert_array_equal(out, x)
    assert dist.all_sum(out, group=alone, out=out) is out
    assert dist.all_gather(np.float64(2), group=alone, out=np.zeros(1)) == [2]


def test_groups_come_and_go(world: dist.Group) -> None:
    """Each rank drops them at its own times and in its own order."""
    random = seeded(world.rank(), 1)
    kept: list[dist.Group] = []
    for turn in range(50):
        kept.append(world.split(turn % 2, turn))
        while len(kept) > 1 and random.random() < 0.5:
            kept.pop(random.integers(len(kept) - 1))
            gc.collect(0)
        assert dist.all_sum(turn, group=kept[-1]) == turn * world.size()
    random.shuffle(kept)  # type: ignore[arg-type]
    del kept
    assert_communicates(world)


def test_communicators_are_freed(world: dist.Group) -> None:
    """MPICH has 2048 of them."""
    if world.size() > 2:
        pytest.skip("the same on 2 ranks, where it is quicker")
    for _ in range(2100):
        world.split(0)
    assert_communicates(world.split(0))


def test_a_part_outlives_its_parent(world: dist.Group) -> None:
    parent = world.split(0)
    part = parent.split(0)
    gone = weakref.ref(parent)
    del parent
    gc.collect()
    assert gone() is None
    assert_communicates(part)


def test_a_group_is_an_object_like_others(world: dist.Group) -> None:
    same = world.split(0)
    assert dist.init() is world
    assert dist.init(backend="mpi") is world
    assert world == dist.init()
    assert same != world
    assert {world: 1, same: 2}[world] == 1
    assert len({world, same, dist.init()}) == 2
    assert bool(same)
    assert bool(world.split(world.rank()))
    assert weakref.ref(same)() is same
    assert str(world) == repr(world) == f"<mlxdist.Group: rank {world.rank()} of {world.size()}>"


def test_wrong_arguments_leave_a_group_usable(world: dist.Group) -> None:
    part = world.split(0)
    for wrong in (lambda: part.split(-1), lambda: dist.broadcast(1, part.size(), group=part)):
        with pytest.raises(ValueError, match=r"^\[(split|broadcast)\] "):
            wrong()
    assert part.is_usable is world.is_usable is True
    assert_communicates(part)


def test_a_broken_group_is_not_usable_and_others_are(world: dist.Group) -> None:
    needs_peers(world)
    part, sibling = world.split(0), world.split(0)
    with pytest.raises(dist.MismatchError):
        dist.all_sum(np.ones(3 if part.rank() else 4), group=part)
    assert not part.is_usable
    assert world.is_usable
    assert sibling.is_usable
    assert_communicates(sibling)


def test_a_message_of_another_dtype_leaves_a_group_usable(world: dist.Group) -> None:
    needs_peers(world)
    part = world.split(0)
    if part.rank() == 0:
        dist.send(np.ones(3, "i4"), 1, group=part)
    elif part.rank() == 1:
        with pytest.raises(dist.MismatchError):
            dist.recv(3, "f4", 0, group=part)
    assert part.is_usable
    assert_communicates(part)


def test_a_group_is_not_a_number(world: dist.Group) -> None:
    """MLX's gradient averaging has divided by a group instead of its size."""
    x: Any = np.ones(3)
    for wrong in (int, float, lambda group: x / group, lambda group: 1 / group, lambda group: group + 1, range):
        with pytest.raises(TypeError):
            wrong(world)
