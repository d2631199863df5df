"""send, recv and recv_like: every type, shape and way to get the result."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements, may_be_out
from parallel.reference import NAMES, assert_new, assert_same, dtype_of, seeded, thinned, values
from parallel.ring import around, needs_peers

import mlxdist as dist

SHAPES = ((), (0,), (1,), (5,), (2, 3), (2, 0, 3))
WAYS = ("recv", "recv_like", "out", "in place")


@pytest.mark.parametrize("name", NAMES)
def test_every_case(world: dist.Group, name: str) -> None:
    needs_peers(world)
    size, rank = world.size(), world.rank()
    cases = itertools.product(SHAPES, PROVIDERS, WAYS)
    for shape, provider, way in thinned(cases, name, size, 7, 47):
        x = PROVIDERS[provider](values(name, shape, rank))
        if x is None or (way == "in place" and not may_be_out(x)):
            continue
        expected = np.array(elements(PROVIDERS[provider](values(name, shape, (rank - 1) % size))), order="C")
        before = elements(x).tobytes()
        # a message must not be received into the array that is being sent
        like = PROVIDERS[provider](values(name, shape, rank)) if way == "in place" else x
        received = around(world, functools.partial(sent_as_it_is, x), functools.partial(received_by, way, like))
        assert_same(received, expected)
        assert elements(x).tobytes() == before


def sent_as_it_is(x: Any, dst: int) -> None:
    assert dist.send(x, dst) is x


def received_by(way: str, like: Any, src: int) -> np.ndarray:
    array = elements(like)
    if way == "recv":
        result = dist.recv(array.shape, array.dtype, src)
    elif way == "recv_like":
        result = dist.recv_like(like, src)
        assert_new(result, array)
    elif way == "out":
        result = np.empty(array.shape, array.dtype)
        assert dist.recv_like(like, src, out=result) is result
    else:
        assert dist.recv_like(like, src, out=like) is like
        result = elements(like)
    return result


@pytest.mark.parametrize(
    ("shape", "dtype", "expected_shape", "expected_dtype"),
    [
        (3, np.dtype("int16"), (3,), "int16"),
        ((3,), np.int32, (3,), "int32"),
        ([1, 3], "float32", (1, 3), "float32"),
        (np.int64(3), "<f8", (3,), "float64"),
        ((), float, (), "float64"),
        (0, int, (0,), "int64"),
        ((np.int8(2), 1), bool, (2, 1), "bool"),
        (2, complex, (2,), "complex128"),
        ((2,), dtype_of("bfloat16"), (2,), "bfloat16"),
        ((2,), dtype_of("bfloat16").type, (2,), "bfloat16"),
        ((2, 2), "bfloat16", (2, 2), "bfloat16"),
    ],
)
def test_recv_takes_shapes_and_dtypes_of_every_form(
    world: dist.Group, shape: Any, dtype: Any, expected_shape: tuple[int, ...], expected_dtype: str
) -> None:
    needs_peers(world)
    expected = values(expected_dtype, expected_shape, 9)
    result = around(world, lambda dst: dist.send(expected, dst), lambda src: dist.recv(shape, dtype, src))
    assert_same(result, expected)
    assert_new(result)


def test_every_pair(world: dist.Group) -> None:
    """Each rank to every other; peers may be NumPy integers."""
    needs_peers(world)
    for sender, receiver in itertools.permutations(range(world.size()), 2):
        if world.rank() == sender:
            dist.send(10 * sender + receiver, np.int64(receiver))
        elif world.rank() == receiver:
            assert_same(dist.recv((), int, np.uint8(sender)), np.array(10 * sender + receiver))


def test_messages_keep_their_order(world: dist.Group) -> None:
    needs_peers(world)
    messages = [np.full(length, length, dtype) for length in (1, 0, 7, 3) for dtype in (np.int8, np.float64)]
    if world.rank() == 0:
        for message in messages:
            dist.send(message, world.size() - 1)
    elif world.rank() == world.size() - 1:
        for message in messages:
            assert_same(dist.recv(message.shape, message.dtype, 0), message)


@pytest.mark.parametrize("nbytes", [300_000, 5_000_001])
def test_large(world: dist.Group, nbytes: int) -> None:
    needs_peers(world)
    each = [seeded(rank, nbytes).integers(0, 256, nbytes, np.uint8) for rank in range(world.size())]
    result = around(world, lambda dst: dist.send(each[world.rank()], dst), lambda src: dist.recv(nbytes, np.uint8, src))
    assert_same(result, each[world.rank() - 1])


def test_groups_do_not_take_each_others_messages(world: dist.Group) -> None:
    needs_peers(world)
    same = world.split(0)
    if world.rank() == 0:
        dist.send(1.0, 1, group=world)
        dist.send(2.0, 1, group=same)
    elif world.rank() == 1:
        assert dist.recv((), float, 0, group=same) == 2
        assert dist.recv((), float, 0, group=world) == 1


@pytest.mark.parametrize(
    ("call", "run"),
    [
        ("send", lambda group: dist.send(1.0, 0, group=group)),
        ("recv", lambda group: dist.recv(3, np.float32, 0, group=group)),
        ("recv_like", lambda group: dist.recv_like(1.0, 0, group=group)),
    ],
)
def test_a_group_of_one_has_no_peer(world: dist.Group, call: str, run: Callable[[dist.Group], object]) -> None:
    alone = world if world.size() == 1 else world.split(world.rank())
    with pytest.raises(ValueError, match=rf"^\[{call}\] a group of one has no peers: test group.size\(\) > 1"):
        run(alone)


def test_a_refused_message_lets_its_array_go(world: dist.Group) -> None:
    needs_peers(world)
    group, other = world.split(0), (world.rank() + 1) % world.size()
    with pytest.raises(dist.MismatchError):
        dist.all_sum(np.ones(3 + world.rank()), group=group)
    for refused in (dist.send, dist.recv_like):
        x = np.ones(1000)
        seen = weakref.ref(x)
        with pytest.raises(dist.Error, match="broken"):
            refused(x, other, group=group)
        del x
        assert seen() is None, refused.__name__
