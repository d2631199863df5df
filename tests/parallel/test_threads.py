"""Threads of a rank that communicate at the same time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import numpy as np
import pytest
from parallel.reference import long
from parallel.ring import around, needs_peers

import mlxdist as dist

pytestmark = pytest.mark.skipif(
    dist.info().threads not in ("", "MPI_THREAD_MULTIPLE"), reason=f"this MPI allows {dist.info().threads}"
)
THREADS, TURNS, TIMEOUT_S = 4, 6, 60


def at_once(*runs: Callable[[], None]) -> None:
    """Run all, each in a thread, and raise what one of them raised, even if others wait for it forever."""
    failures: list[BaseException] = []

    def guarded(run: Callable[[], None]) -> None:
        try:
            run()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=guarded, args=(run,), daemon=True) for run in runs]
    for thread in threads:
        thread.start()
    deadline = time.monotonic() + TIMEOUT_S
    while any(thread.is_alive() for thread in threads) and not failures and time.monotonic() < deadline:
        time.sleep(0.001)
    if failures:
        raise failures[0]
    assert not any(thread.is_alive() for thread in threads), "threads wait for each other"


def test_each_with_its_group(world: dist.Group) -> None:
    groups = [world.split(0) for _ in range(THREADS)]

    def run(number: int) -> None:
        group, size = groups[number], world.size()
        for turn in range(TURNS):
            x = np.full(100 + number, 10 * number + turn + world.rank())
            expected = size * (10 * number + turn) + sum(range(size))
            np.testing.assert_array_equal(dist.all_sum(x, group=group), np.full(100 + number, expected))
            gathered = np.atleast_1d(dist.all_gather(np.int64(100 * number + world.rank()), group=group))
            np.testing.assert_array_equal(gathered, 100 * number + np.arange(size))

    at_once(*(lambda number=number: run(number) for number in range(THREADS)))


def test_all_with_one_group(world: dist.Group) -> None:
    """Any thread may meet any thread of another rank, so all make the same calls, and nothing gets mixed up."""
    numbers = np.arange(long(1000), dtype=np.float64)
    x, expected = numbers * (world.rank() + 1), numbers * sum(range(1, world.size() + 1))

    def run() -> None:
        for _ in range(TURNS):
            np.testing.assert_array_equal(dist.all_sum(x), expected)

    at_once(*[run] * THREADS)


def test_one_receives_while_another_adds_and_sends(world: dist.Group) -> None:
    """In the same group, and each rank sends its message only after its other thread has begun to wait for one."""
    needs_peers(world)
    following, before = (world.rank() + 1) % world.size(), (world.rank() - 1) % world.size()
    received = []

    def late() -> None:
        time.sleep(0.05)
        assert dist.all_sum(1) == world.size()
        dist.send(world.rank(), following)

    at_once(lambda: received.append(dist.recv((), int, before)), late)
    assert received == [before]


def test_one_sends_while_another_is_in_a_collective(world: dist.Group) -> None:
    needs_peers(world)
    if world.rank() == 0:

        def late() -> None:
            time.sleep(0.05)
            dist.send(7, 1)

        at_once(dist.barrier, late)
    else:
        if world.rank() == 1:
            assert dist.recv((), int, 0) == 7
        dist.barrier()


def test_groups_are_split_and_let_go_by_threads(world: dist.Group) -> None:
    """Each splits its own group; communicators are freed by the next thread that splits."""
    groups = [world.split(0) for _ in range(THREADS)]

    def run(group: dist.Group) -> None:
        for turn in range(TURNS):
            part = group.split(world.rank() % 2)
            assert dist.all_sum(turn, group=part) == turn * part.size()

    at_once(*(lambda group=group: run(group) for group in groups))


def test_messages_of_threads_in_groups_of_their_own(world: dist.Group) -> None:
    needs_peers(world)
    groups = [world.split(0) for _ in range(THREADS)]

    def run(number: int) -> None:
        group, before = groups[number], (world.rank() - 1) % world.size()
        for turn in range(TURNS):
            x = np.full(number + turn, 10 * number + world.rank())
            got = around(
                group,
                lambda dst, x=x: dist.send(x, dst, group=group),
                lambda src, x=x: dist.recv_like(x, src, group=group),
            )
            np.testing.assert_array_equal(got, np.full(number + turn, 10 * number + before))

    at_once(*(lambda number=number: run(number) for number in range(THREADS)))
