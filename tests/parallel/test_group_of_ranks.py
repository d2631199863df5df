"""Groups that only their members make: their order, what they can do, many at a time, and calls that fail."""

from __future__ import annotations

import itertools
import signal
import threading
from typing import Any

import numpy as np
import pytest
from parallel.reference import seeded
from parallel.ring import needs_peers
from parallel.test_split import assert_communicates, members

import mlxdist as dist
from mlxdist import _core


def lists(size: int) -> list[list[int]]:
    """Every set of ranks of the world, each in an order of its own, which is the same on every rank."""
    random = seeded(size)
    return [
        [int(rank) for rank in random.permutation(chosen)]
        for n in range(1, size + 1)
        for chosen in itertools.combinations(range(size), n)
    ]


def test_members_only(world: dist.Group) -> None:
    for ranks in lists(world.size()):
        if world.rank() not in ranks:
            continue
        group = dist.group(ranks)
        assert type(group) is dist.Group
        assert (group.rank(), group.size()) == (ranks.index(world.rank()), len(ranks))
        assert members(group, world) == ranks
        assert_communicates(group)
    assert_communicates(world)


@pytest.mark.parametrize("make", [range, np.arange, lambda n: tuple(range(n)), lambda n: iter(range(n))])
def test_lists(world: dist.Group, make: Any) -> None:
    assert members(world.group(make(world.size())), world) == list(range(world.size()))


def test_a_group_of_a_group(world: dist.Group) -> None:
    backwards = world.group(range(world.size())[::-1])
    if backwards.rank() < 2:
        pair = backwards.group(range(min(2, world.size())))
        assert members(pair, world) == list(range(world.size()))[::-1][:2]
        part = pair.split(pair.rank())
        assert part.size() == 1
        alone = part.group([0])
        assert_communicates(alone)
        assert_communicates(pair)


def test_arrays_in_shared_memory(world: dist.Group) -> None:
    group = dist.group(range(world.size())[::-1])
    if group.local_size() < group.size():
        with pytest.raises(dist.Error, match="not all ranks of the group share this host's memory"):
            dist.empty(10, group=group)
        return
    x = dist.empty(100_000, group=group)
    x[:] = group.rank()
    assert dist.all_sum(x, group=group, out=x) is x
    assert (x == sum(range(group.size()))).all()


def test_other_ranks_do_something_else(world: dist.Group) -> None:
    """The collective under way is of the group that it is made of."""
    needs_peers(world)
    for last in range(1, world.size()):
        if world.rank() in (0, last):
            assert dist.all_sum(1, group=dist.group([last, 0])) == 2
        assert dist.all_sum(1) == world.size()


def test_many_at_a_time(world: dist.Group) -> None:
    """Each set on a thread of its own, which begin in another order on each rank."""
    mine = [ranks for ranks in lists(world.size()) if world.rank() in ranks]
    random, failures = seeded(world.rank(), 7), []

    def make(ranks: list[int]) -> None:
        try:
            group = dist.group(ranks)
            assert members(group, world) == ranks
            assert (dist.all_sum(np.ones(10_000), group=group) == len(ranks)).all()
        except BaseException as error:
            failures.append((ranks, error))

    for _ in range(5):
        random.shuffle(mine)  # type: ignore[arg-type]
        threads = [threading.Thread(target=make, args=(ranks,)) for ranks in mine]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []


def test_a_timeout_is_inherited(world: dist.Group) -> None:
    needs_peers(world)
    parent = world.split(0)
    _core.set_timeout(parent, 0.2)
    group = parent.group(range(world.size()))
    _core.set_timeout(parent, 0)
    if group.rank() == 0:
        with pytest.raises(dist.TimeoutError, match=r"waited for 0\.2 s"):
            dist.recv((), int, 1, group=group)
    dist.barrier()


@pytest.mark.parametrize(
    ("ranks", "error", "said"),
    [
        ([], ValueError, "is empty"),
        ([0, -1], ValueError, "-1 is not in the group"),
        ([0, 10**30], ValueError, "is not in the group"),
        ([0, 0], ValueError, "0 is there twice"),
        ("01", TypeError, "is not a list of ints"),
        (1, TypeError, "is not a list of ints"),
        (None, TypeError, "is not a list of ints"),
        ([0, True], TypeError, r"ranks\[1\]=True is not an int"),
        ([0.0], TypeError, r"ranks\[0\]=0.0 is not an int"),
        ([None], TypeError, r"ranks\[0\]=None is not an int"),
    ],
)
def test_wrong_lists_are_refused_before_communication(
    world: dist.Group, ranks: Any, error: type[Exception], said: str
) -> None:
    """By one rank alone."""
    if world.rank() == 0:
        for wrong in (dist.group, world.group):
            with pytest.raises(error, match=rf"^\[group\] .*{said}"):
                wrong(ranks)
    assert_communicates(world)


def test_only_members_call_it(world: dist.Group) -> None:
    needs_peers(world)
    if world.rank():
        with pytest.raises(ValueError, match=rf"^\[group\] ranks=\[0\] lacks this rank, {world.rank()}"):
            dist.group([0])
    assert_communicates(world)


def fails(error: type[BaseException], said: str, group: dist.Group, ranks: list[int]) -> None:
    with pytest.raises(error, match=rf"(?s)^\[group\] .*{said}"):
        group.group(ranks)


def assert_is_as_it_was(parent: dist.Group) -> None:
    """A failure breaks nothing: the same call works the next time."""
    dist.barrier()
    assert parent.is_usable
    assert_communicates(parent)
    assert_communicates(parent.group(range(parent.size())))


def test_another_order(world: dist.Group) -> None:
    needs_peers(world)
    parent, ranks = world.split(0), list(range(world.size()))
    said = r"the ranks differ:\n  rank \d: group\(\[[\d, ]+\]\)\n  rank \d: group"
    fails(dist.MismatchError, said, parent, ranks if world.rank() < world.size() - 1 else ranks[::-1])
    assert_is_as_it_was(parent)


def test_other_ranks(world: dist.Group) -> None:
    if world.size() < 3:
        pytest.skip("two ranks have one list")
    parent, ranks = world.split(0), list(range(world.size()))
    assert threading.active_count() == 1, threading.enumerate()
    for passed in ([0, 1], [1, 2]):
        fails(dist.MismatchError, r"group\(\[\d, \d\]\)", parent, passed if world.rank() == 1 else ranks)
        dist.barrier()
    assert parent.is_usable
    assert_communicates(parent)


def test_a_rank_that_is_late(world: dist.Group) -> None:
    """The call that the others gave up fails on it, too."""
    needs_peers(world)
    ranks = list(range(world.size()))
    for late in (0, 1):
        parent = world.split(0)
        # Only the lowest rank knows which others have called it, and another may be the first to give up.
        said = "waited for 0.3 s in " + ("" if late else ".*: rank 0 has not called it")
        if world.rank() != late:
            _core.set_timeout(parent, 0.3)
            with pytest.raises((dist.TimeoutError, dist.PeerError), match=said):
                parent.group(ranks)
            _core.set_timeout(parent, 0)
        dist.barrier()
        if world.rank() == late:
            fails(dist.PeerError, "has given up: waited for 0.3 s", parent, ranks)
        assert_is_as_it_was(parent)


def test_an_interrupted_rank(world: dist.Group) -> None:
    needs_peers(world)
    parent, ranks = world.split(0), list(range(world.size()))
    if world.rank() == 0:
        timer = threading.Timer(0.3, signal.raise_signal, (signal.SIGINT,))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            parent.group(ranks)
        timer.join()
    dist.barrier()
    if world.rank():
        fails(dist.PeerError, "rank 0 has given up: interrupted", parent, ranks)
    assert_is_as_it_was(parent)


def test_a_broken_group_makes_no_others(world: dist.Group) -> None:
    needs_peers(world)
    part = world.split(0)
    with pytest.raises(dist.MismatchError):
        dist.all_sum(np.ones(3 if part.rank() else 4), group=part)
    fails(dist.MismatchError, "this group was broken by an earlier error", part, [part.rank()])


def test_local_ranks(world: dist.Group) -> None:
    for group in (world, dist.group(range(world.size())[::-1]), world.split(world.rank() % 2)):
        pairs = dist.all_gather(np.array([[group.local_rank(), group.local_size()]]), group=group)
        assert 0 <= group.local_rank() < group.local_size() <= group.size()
        assert pairs[group.rank()].tolist() == [group.local_rank(), group.local_size()]
        # Hosts are of as many ranks as they say, with different local ranks in the order of ranks.
        for n in set(pairs[:, 1]):
            found = pairs[pairs[:, 1] == n, 0]
            assert np.bincount(found).tolist() == [len(found) // n] * n
    assert world.local_size() == _core.local_size()[0]
