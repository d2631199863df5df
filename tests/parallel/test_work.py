"""Calls in the background: the results of the same calls without wait=False, in order, and with others in between."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import threading
import time
from typing import Any

import numpy as np
import pytest
from parallel.in_background import (
    BEFORE,
    NEXT,
    OPERATIONS,
    check_average_gradients,
    check_messages,
    check_out,
    check_result,
    drawn,
)
from parallel.reference import NAMES, assert_same, values
from parallel.refused import RANK, SIZE, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist


@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_result_is_that_of_the_call(operation: str) -> None:
    check_result(np.asarray, operation)


@pytest.mark.parametrize("name", NAMES)
def test_every_dtype_in_place(name: str) -> None:
    x = values(name, (1000,), RANK).copy()
    expected = dist.all_sum(x)
    assert dist.all_sum(x, out=x, wait=False).wait() is x
    assert_same(x, expected)


def test_the_result_goes_to_out() -> None:
    check_out(np.asarray)


def test_barrier() -> None:
    work = dist.barrier(wait=False)
    assert work.wait() is None


@pytest.mark.parametrize("x", [3, 2.5, np.float32(1), memoryview(b"abc")])
def test_numbers_and_buffers(x: Any) -> None:
    assert_same(dist.all_max(x, wait=False).wait(), np.asarray(dist.all_max(x)))


def test_calls_run_in_the_order_in_which_they_were_started() -> None:
    """Whatever their length, and whichever is waited for first; another call comes after them all."""
    lengths = [(7 * k) % 40 * (1000 if k % 5 == 0 else 1) for k in range(60)]
    xs = [drawn(length, k) for k, length in enumerate(lengths)]
    works = [dist.all_sum(x, wait=False) for x in xs]
    between = dist.all_gather(RANK)
    assert all(work.done() for work in works)
    assert list(between) == list(range(SIZE))
    for x, work in reversed(list(zip(xs, works, strict=True))):
        assert_same(work.wait(), dist.all_sum(x))


def test_messages_in_any_order() -> None:
    """All ranks send before they receive, and long ones, too: without the background each would wait for another."""
    needs_peers(dist.init())
    xs = {(peer, k): drawn(length, 10 * peer + k) for peer in range(SIZE) for k, length in enumerate((200_000, 3, 0))}
    sends = [dist.send(x, peer, wait=False) for (peer, _), x in xs.items() if peer != RANK]
    recvs = {
        (peer, k): dist.recv(xs[RANK, k].shape, np.float32, peer, wait=False)
        for peer in reversed(range(SIZE))
        for k in range(3)
        if peer != RANK
    }
    for (peer, k), work in recvs.items():
        length = (200_000, 3, 0)[k]
        wanted = np.random.default_rng([peer, length, 10 * RANK + k]).integers(0, 100, (length * SIZE, 2))
        assert_same(work.wait(), wanted.astype(np.float32))
    for work in sends:
        work.wait()


def test_messages() -> None:
    needs_peers(dist.init())
    check_messages(np.asarray)


def test_messages_that_wait_and_those_that_do_not() -> None:
    """Those to the same rank keep their order; a message in the other direction does not wait for them."""
    needs_peers(dist.init())
    received = [dist.recv((), np.int64, BEFORE, wait=False) for _ in range(20)]
    for k in range(20):
        if k % 2:
            dist.send(np.int64(k), NEXT)
        else:
            dist.send(np.int64(k), NEXT, wait=False)
    assert [int(work.wait()) for work in received] == list(range(20))
    first = dist.recv((), np.int64, BEFORE, wait=False)
    dist.send(np.int64(1), NEXT, wait=False).wait()
    dist.send(np.int64(2), NEXT, wait=False).wait()
    assert (int(dist.recv((), np.int64, BEFORE)), int(first.wait())) == (2, 1)


def test_an_exchange_comes_after_messages_of_both_directions() -> None:
    needs_peers(dist.init())
    for k in range(20):
        received = dist.recv((1000,), np.float32, BEFORE, wait=False)
        sent = dist.send(np.full(1000, RANK, np.float32), NEXT, wait=False)
        exchanged = dist.sendrecv(np.full(1000, RANK + 100 + k, np.float32), NEXT, BEFORE)
        assert_same(received.wait(), np.full(1000, BEFORE, np.float32))
        assert_same(exchanged, np.full(1000, BEFORE + 100 + k, np.float32))
        sent.wait()


def test_a_collective_under_way_does_not_block_messages() -> None:
    needs_peers(dist.init())
    if RANK:
        work = dist.barrier(wait=False)
    right = dist.sendrecv(np.int64(RANK), NEXT, BEFORE, wait=False)
    assert int(right.wait()) == BEFORE
    assert RANK == 0 or not work.done()
    dist.sendrecv(RANK, NEXT, BEFORE)  # until all have looked
    if RANK == 0:
        work = dist.barrier(wait=False)
    work.wait()


def test_groups_in_another_order_on_each_rank(world: dist.Group) -> None:
    groups = [world.split(0), world.split(0)]
    order = groups if RANK % 2 else groups[::-1]
    works = {group: dist.all_sum(np.full(5000, k), group=group, wait=False) for k, group in enumerate(order)}
    for group in groups:
        assert works[group].wait().shape == (5000,)


def test_a_group_that_is_dropped_before_its_calls_have_ended(world: dist.Group) -> None:
    work = dist.all_sum(np.ones(100_000), group=world.split(0), wait=False)
    gc.collect()
    assert work.wait()[0] == SIZE


def test_a_group_that_is_split_comes_after_its_calls(world: dist.Group) -> None:
    works = [dist.all_sum(np.ones(length), wait=False) for length in (1, 100_000)]
    world.split(RANK)
    assert all(work.done() for work in works)
    for work in works:
        work.wait()


def test_memory_in_use_is_refused() -> None:
    """Also if the call has ended, so that all ranks refuse it; until the program has asked for its end."""
    needs_peers(dist.init())
    x, y, z = np.ones(100), np.ones(100), np.ones(100)
    works = [dist.all_sum(x, out=x, wait=False), dist.all_sum(y, out=z, wait=False)]
    time.sleep(0.05 * RANK)
    for call in (
        lambda: dist.all_sum(x),
        lambda: dist.all_max(x[50:]),
        lambda: dist.all_sum(x, wait=False),
        lambda: dist.all_sum(z),
        lambda: dist.all_sum(np.ones(100), out=y),
        lambda: dist.recv_like(x, NEXT, out=x),
        lambda: dist.send(x, NEXT),
        lambda: dist.average_gradients([x, np.ones(3)]),
        lambda: dist.average_gradients({"a": y}, wait=False),
    ):
        with pytest.raises(
            ValueError, match=r"^\[\w+\] an array is in use, all_sum with wait=False (reads|writes) it:"
        ):
            call()
    assert dist.all_sum(y)[0] == SIZE  # both only read it
    for work in works:
        work.wait()
    assert dist.all_sum(x)[0] == SIZE * SIZE


def test_one_array_can_be_sent_to_several_ranks() -> None:
    needs_peers(dist.init())
    x = np.arange(1000.0) + RANK
    sends = [dist.send(part, peer, wait=False) for peer in range(SIZE) if peer != RANK for part in (x, x[10:20])]
    for peer in range(SIZE):
        if peer != RANK:
            assert_same(dist.recv((1000,), np.float64, peer), np.arange(1000.0) + peer)
            assert_same(dist.recv((10,), np.float64, peer), np.arange(10.0, 20.0) + peer)
    for work in sends:
        work.wait()


def test_a_wait_can_end_before_the_call() -> None:
    needs_peers(dist.init())
    if RANK == 0:
        dist.recv((), np.int64, 1)
    work = dist.all_sum(1, wait=False)
    if RANK == 1:
        assert not work.done()
        assert "under way" in repr(work)
        for limit in (0, 0.01):
            with pytest.raises(dist.TimeoutError, match=r"^\[all_sum\] .* it is still under way$"):
                work.wait(limit)
        with pytest.raises(dist.Error, match=r"^\[result\] "):
            work.result()
        dist.send(np.int64(0), 0)
    assert work.wait(60) == SIZE
    assert "done" in repr(work)


def test_a_call_whose_work_is_dropped_is_done_all_the_same() -> None:
    x = np.full(200_000, RANK + 1.0)
    dist.all_sum(x, out=x, wait=False)
    dist.barrier()
    assert x[-1] == SIZE * (SIZE + 1) / 2


def test_works_can_be_awaited() -> None:
    async def count(works: list[dist.Work]) -> int:
        """How often the loop came round meanwhile."""
        rounds = 0
        while not all(work.done() for work in works):
            rounds += 1
            await asyncio.sleep(0.001)
        return rounds

    async def value_of(work: dist.Work) -> Any:
        return await work

    async def main() -> None:
        if RANK == 0:
            await asyncio.sleep(0.1)
        works = [dist.all_sum(np.full(10, k), wait=False) for k in range(5)]
        rounds, *totals = await asyncio.gather(count(works), *map(value_of, [*works, works[0]]))
        assert [total[0] for total in totals] == [SIZE * k for k in (0, 1, 2, 3, 4, 0)]
        assert RANK == 0 or SIZE == 1 or rounds > 3
        assert await works[1] is works[1].wait()

    asyncio.run(main())


def test_an_awaited_work_can_be_given_up() -> None:
    needs_peers(dist.init())

    async def value_of(work: dist.Work) -> Any:
        return await work

    async def main() -> None:
        work = dist.all_sum(1, wait=False)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(value_of(work), 0.05)
        dist.send(np.int64(0), 0)
        assert await work == SIZE

    if RANK == 1:
        asyncio.run(main())
        return
    if RANK == 0:
        dist.recv((), np.int64, 1)
    dist.all_sum(1)


def test_threads_wait_for_the_same_work() -> None:
    work, results = dist.all_sum(np.ones(100_000), wait=False), []
    threads = [threading.Thread(target=lambda: results.append(work.wait())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 4
    assert all(result is results[0] for result in results)


@pytest.mark.parametrize("all_reduce_size", [0, 1000, 32 << 20])
def test_average_gradients(all_reduce_size: int) -> None:
    check_average_gradients(np.asarray, all_reduce_size)


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_mlx_is_lazy_already() -> None:
    import mlx.core as mx

    x = mx.ones(3)
    with pytest.raises(TypeError, match=r"^\[all_sum\] MLX is lazy already: .* mx.async_eval\(\)$"):
        dist.all_sum(x, wait=False)
    with pytest.raises(TypeError, match=r"^\[average_gradients\] MLX is lazy already: "):
        dist.average_gradients([x], wait=False)
    if SIZE > 1:
        with pytest.raises(TypeError, match=r"^\[recv\] MLX is lazy already: "):
            dist.recv((3,), mx.float32, NEXT, wait=False)


def test_what_is_wrong_is_raised_at_once() -> None:
    x = np.arange(6.0)
    assert_refused(
        [
            case("all_sum", "out has shape", ValueError, dist.all_sum, x, out=np.zeros(3), wait=False),
            case("all_sum", "a str is not an array", TypeError, dist.all_sum, "x", wait=False),
            case("broadcast", "src=9", ValueError, dist.broadcast, x, 9, wait=False),
        ]
    )
