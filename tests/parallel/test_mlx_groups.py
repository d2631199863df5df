"""Group.mlx is MLX's group of the same ranks; NumPy and MLX communicate in turns; what is rejected."""

from __future__ import annotations

import gc
import time
import weakref
from typing import Any

import numpy as np
import pytest

import mlxdist as dist

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
dist.install()

MLX = tuple(int(part) for part in mx.__version__.split(".")[:3])


def ranks_of_part(world: dist.Group) -> list[int]:
    """The ranks of the world with this rank's color, rank % 2."""
    return list(range(world.rank() % 2, world.size(), 2))


def gathered_ranks(world: dist.Group, group: Any) -> list[int]:
    return list(mx.distributed.all_gather(mx.array([world.rank()]), group=group).tolist())


def test_the_world(world: dist.Group) -> None:
    dist.install()  # calling it again is harmless
    for group in (world.mlx, mx.distributed.init(), mx.distributed.init(backend="mpi")):
        assert (group.rank(), group.size()) == (world.rank(), world.size())
        assert gathered_ranks(world, group) == list(range(world.size()))
    assert world.mlx is world.mlx
    assert isinstance(world.mlx, mx.distributed.Group)
    assert mx.distributed.is_available()
    assert mx.distributed.is_available("mpi")


def test_a_group_of_one_can_be_split(world: dist.Group) -> None:
    """By MLX's own method, too, as the same program does on several ranks."""
    alone = mx.distributed.init().split(world.rank())
    part = alone.split(0)
    assert (part.rank(), part.size()) == (0, 1)
    assert mx.distributed.all_sum(mx.ones(2), group=part).tolist() == [1, 1]


def test_parts(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    assert part.mlx is part.mlx
    assert (part.mlx.rank(), part.mlx.size()) == (part.rank(), part.size()) == (world.rank() // 2, part.size())
    assert gathered_ranks(world, part.mlx) == ranks_of_part(world)
    assert dist.all_sum(mx.array(world.rank()), group=part).item() == sum(ranks_of_part(world))
    assert dist.broadcast(mx.array(world.rank()), part.size() - 1, group=part).item() == ranks_of_part(world)[-1]
    share = dist.sum_scatter(mx.arange(part.size()) * 10 + world.rank(), group=part)
    assert share.tolist() == [10 * part.rank() * part.size() + sum(ranks_of_part(world))]


def test_order_of_ranks(world: dist.Group) -> None:
    backwards = world.split(0, key=world.size() - 1 - world.rank())
    assert backwards.mlx.rank() == world.size() - 1 - world.rank()
    assert gathered_ranks(world, backwards.mlx) == list(range(world.size()))[::-1]


def test_groups_of_one(world: dist.Group) -> None:
    alone = world.split(world.rank())
    assert (alone.mlx.rank(), alone.mlx.size()) == (0, 1)
    x = mx.arange(3) + world.rank()
    for result in (
        dist.all_sum(x, group=alone),
        mx.distributed.all_max(x, group=alone.mlx),
        dist.all_gather(x, group=alone),
        dist.sum_scatter(x, group=alone),
        dist.broadcast(x, 0, group=alone),
    ):
        assert result.tolist() == x.tolist()
    assert mx.grad(lambda x: dist.sum_scatter(x, group=alone).sum())(mx.ones(2)).tolist() == [1, 1]
    for call in (lambda: dist.send(x, 0, group=alone), lambda: mx.distributed.recv((3,), x.dtype, 0, group=alone.mlx)):
        with pytest.raises(ValueError, match="group"):
            call()


def test_groups_made_by_mlx(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("MLX does not split a group of one")
    part = mx.distributed.init().split(world.rank() % 2)
    assert (part.rank(), part.size()) == (world.rank() // 2, len(ranks_of_part(world)))
    assert gathered_ranks(world, part) == ranks_of_part(world)
    backwards = world.mlx.split(0, world.size() - 1 - world.rank())
    assert gathered_ranks(world, backwards) == list(range(world.size()))[::-1]
    with pytest.raises(ValueError, match="color=-1 is out of range"):
        world.mlx.split(-1)


def test_a_part_of_a_part(world: dist.Group) -> None:
    part = world.split(world.rank() % 2).split(0, key=-world.rank() + world.size())
    assert gathered_ranks(world, part.mlx) == ranks_of_part(world)[::-1]


def test_groups_may_be_let_go_of_at_any_time(world: dist.Group) -> None:
    part = world.split(0)
    gone = weakref.ref(part)
    chain = mx.array([world.rank()])
    for _ in range(10):
        chain = dist.broadcast(dist.all_max(chain, group=part), 0, group=part)
    gathered = dist.all_gather(chain + world.rank(), group=part)
    del part
    world.split(0)  # frees the communicators of dropped groups
    # MLX drops the group as soon as the last operation is queued in its stream, where others are still pending
    assert gathered.tolist() == [world.size() - 1 + rank for rank in range(world.size())]
    gc.collect()
    assert gone() is None
    world.split(0)


def test_an_operation_keeps_its_group(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("a group of one waits for nobody")
    part = world.split(0)
    if world.rank() == 0:
        mx.async_eval(dist.all_sum(mx.ones(3), group=part))
        time.sleep(0.2)  # until it waits for the others
        del part
    for _ in range(70):  # more than rest
        assert world.split(0).mlx
    if world.rank():
        assert dist.all_sum(mx.ones(3), group=part).tolist() == [world.size()] * 3
    mx.synchronize(mx.default_stream(mx.cpu))


def test_both_groups_in_between_each_other(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    for step in range(5):
        expected = sum(ranks_of_part(world)) + step * part.size()
        x = np.array([world.rank() + step])
        assert dist.all_sum(x, group=part).tolist() == [expected]
        assert mx.distributed.all_sum(mx.array(x), group=part.mlx).tolist() == [expected]
        assert dist.all_sum(mx.array(x), group=part).tolist() == [expected]
    everybodys = sum(range(world.size()))
    assert dist.all_sum(mx.array(world.rank())).item() == dist.all_sum(np.array(world.rank())) == everybodys


def test_from_numpy_to_mlx_and_back(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("a group of one has no peers")
    if world.rank() == 0:
        dist.send(np.arange(5, dtype=np.float32), 1)
        np.testing.assert_array_equal(dist.recv((2, 3), np.int16, 1), np.full((2, 3), 7))
    elif world.rank() == 1:
        assert dist.recv((5,), mx.float32, 0).tolist() == [0, 1, 2, 3, 4]
        mx.eval(mx.distributed.send(mx.full((2, 3), 7, mx.int16), 0))


def test_another_length_is_an_error(world: dist.Group) -> None:
    if world.size() == 1:
        pytest.skip("a group of one has no peers")
    if MLX < (0, 32, 2):
        pytest.skip("this MLX ends the process on an error of its libmpi")
    if world.rank() == 0:
        dist.send(np.ones(3, np.float32), 1)
        dist.send(np.full(4, 2, np.float32), 1)
    elif world.rank() == 1:
        with pytest.raises(RuntimeError, match=r"\[recv\] rank 0 sent 12 bytes of float32, rank 1 expected 16"):
            mx.eval(dist.recv((4,), mx.float32, 0))
        assert dist.recv((4,), mx.float32, 0).tolist() == [2] * 4  # and the next one arrives
    assert dist.all_sum(mx.array(1)).item() == world.size()


def test_refused_before_anything_is_sent(world: dist.Group) -> None:
    x, n = mx.ones((n_rows := 2 * world.size() + 1, 2)), world.size()
    for call in (dist.all_sum, dist.all_max, dist.all_min, dist.all_gather, dist.sum_scatter):
        with pytest.raises(TypeError, match="cannot be written to"):
            call(x[:-1], out=x)
    with pytest.raises(TypeError, match="cannot be written to"):
        dist.broadcast(x, 0, out=x)
    if n > 1:
        with pytest.raises(ValueError, match=rf"{n_rows}.*is not divisible by the group's size {n}"):
            dist.sum_scatter(x)
    with pytest.raises(ValueError, match="is not divisible"):
        dist.sum_scatter(mx.array(1.0))
    for peer in (n, -1, world.rank()):
        for refused in (
            lambda peer=peer: dist.send(x, peer),
            lambda peer=peer: dist.recv((2,), mx.float32, peer),
            lambda peer=peer: dist.recv_like(x, peer),
        ):
            with pytest.raises(ValueError, match=r"group|this rank itself"):
                refused()
    for peer in (n, -1):
        with pytest.raises(ValueError, match="not in the group"):
            dist.broadcast(x, peer)
        with pytest.raises(ValueError, match=r"send|[Rr]ank|group"):
            mx.distributed.send(x, peer)
    huge = mx.broadcast_to(mx.array(1.0), (2**16, 2**16))  # not evaluated, and nothing is allocated
    for call in (dist.all_sum, dist.all_max, dist.all_min, dist.all_gather, lambda x: dist.broadcast(x, 0)):
        with pytest.raises(ValueError, match="4294967296 elements"):
            call(huge)
    theirs = [mx.distributed.all_sum, mx.distributed.all_max, mx.distributed.all_min, mx.distributed.all_gather]
    if n > 1:  # in a group of one MLX has no messages
        theirs.append(lambda x: mx.distributed.send(x, (world.rank() + 1) % n))
        theirs.append(lambda x: mx.distributed.recv(x.shape, x.dtype, (world.rank() + 1) % n))
        theirs.append(lambda x: mx.distributed.recv_like(x, (world.rank() + 1) % n))
        mx.distributed.all_gather(huge[1:])  # it is the input that counts; not evaluated
    for call in theirs:
        with pytest.raises(ValueError, match="4294967296 elements"):
            call(huge)
    assert dist.all_sum(mx.array(1)).item() == n
