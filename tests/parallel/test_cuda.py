"""Arrays in GPU memory, simulated by fake_cupy: a libmpi that supports it gets their pointers, else they are copied."""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from parallel import fake_cupy
from parallel.reference import CALLS, NAMES, assert_same, calls_of, mean, reduced, values
from parallel.refused import SIZE, WORLD, assert_refused, case
from parallel.ring import around, needs_peers
from parallel.rooted import ROOTED, exchanged

import mlxdist as dist
from mlxdist import _core, config
from mlxdist.arrays import cupy, gpu

SHAPES = ((), (0,), (2 * SIZE, 3))


class Foreign:
    """An array of an unknown library, such as Numba."""

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__ | {"version": 3}


def forget() -> None:
    gpu.is_read_by_mpi.cache_clear()
    gpu.say_staged.cache_clear()


@pytest.fixture(params=["0", "1"], ids=["staged", "aware"])
def aware(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[bool]:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy.module())
    monkeypatch.setenv(config.CUDA_AWARE.name, request.param)
    forget()
    yield request.param == "1"
    forget()


def columns(x: np.ndarray) -> np.ndarray:
    return np.asfortranarray(x) if x.ndim == 2 else x.copy()


MADE: dict[str, Callable[[np.ndarray], Any]] = {
    "contiguous": lambda x: fake_cupy.Array(x.copy()),
    "Fortran order": lambda x: fake_cupy.Array(columns(x)),
    "foreign": lambda x: None if x.dtype.name == "bfloat16" else Foreign(x.copy()),  # the interface has no name for it
}


@pytest.mark.parametrize("name", NAMES)
def test_every_operation(world: dist.Group, aware: bool, name: str) -> None:
    for shape, made in itertools.product(SHAPES, MADE.values()):
        each = [values(name, shape, rank) for rank in range(SIZE)]
        x = made(each[world.rank()])
        if x is None:
            continue
        total = reduced("all_sum", each)
        check(dist.all_sum, x, total, each)
        for call in calls_of(name)[1:]:
            check(CALLS[call], x, reduced(call, each), each)
        check(functools.partial(dist.broadcast, src=SIZE - 1), x, each[-1], each)
        check(dist.all_gather, x, np.concatenate([np.atleast_1d(y) for y in each]), each)
        if len(shape) == 2:
            check(dist.sum_scatter, x, np.split(total, SIZE)[world.rank()], each)
            check(dist.all_to_all, x, exchanged(each, world.rank(), 0), each)
            check(functools.partial(dist.scatter, src=SIZE - 1), x, np.split(each[-1], SIZE)[world.rank()], each)
        for call in ("gather", "reduce all_sum"):
            expected, result = ROOTED[call].expected(each, world.rank(), 0), ROOTED[call].run(x, 0)
            if expected is None:
                assert result is x
            else:
                assert_same(result.memory, expected)


def check(run: Callable[..., Any], x: Any, expected: np.ndarray, each: list[np.ndarray]) -> None:
    """A new result, out= and out=x; x is unchanged except in the last."""
    out = fake_cupy.Array(np.empty_like(expected, order="C"))
    assert run(x, out=out) is out
    fake_cupy.current.synchronize()
    assert_same(out.memory, expected)
    assert_same(np.array(x.memory, order="C"), each[WORLD.rank()])
    result = run(x)
    assert type(result) is fake_cupy.Array
    assert_same(result.memory, expected)
    if expected.shape == x.memory.shape and x.memory.flags.c_contiguous:
        again = type(x)(x.memory.copy())
        assert run(again, out=again) is again
        assert_same(again.memory, expected)


@pytest.mark.parametrize("all_reduce_size", [0, 30, 32 * 1024**2])
def test_average_gradients(world: dist.Group, aware: bool, all_reduce_size: int) -> None:
    """Joined and divided on the device, in place, even in Fortran order."""
    tree = {
        (name, shape, kind): made(values(name, shape, world.rank()))
        for name in ("float32", "float16", "float64")
        for shape in SHAPES
        for kind, made in MADE.items()
    }
    averaged = dist.average_gradients(tree, all_reduce_size=all_reduce_size)
    for (name, shape, kind), given in tree.items():
        result = averaged[name, shape, kind]
        fake_cupy.current.synchronize()
        assert result is given
        assert_same(np.array(result.memory, order="C"), mean([values(name, shape, rank) for rank in range(SIZE)]))


def test_wires_that_differ(world: dist.Group, aware: bool) -> None:
    needs_peers(world)
    x = fake_cupy.Array(np.ones(3, "f4"))
    text = rf"float32 \(3,\){' on a GPU' if aware else ''} of tree [0-9a-f]{{8}} as float16 between hosts"
    with pytest.raises(dist.MismatchError, match=text):
        dist.average_gradients(x, world.split(0), wire=None if world.rank() else "float16")


def test_in_place(world: dist.Group, aware: bool) -> None:
    held = np.zeros((SIZE, 3))
    own = held[world.rank() : world.rank() + 1]
    own[...] = world.rank() + 1
    dist.all_gather(fake_cupy.Array(own), out=fake_cupy.Array(held))
    fake_cupy.current.synchronize()
    assert held[:, 0].tolist() == list(range(1, SIZE + 1))
    dist.sum_scatter(fake_cupy.Array(held), out=fake_cupy.Array(own))
    fake_cupy.current.synchronize()
    expected = [(rank + 1) * (SIZE if rank == world.rank() else 1) for rank in range(SIZE)]
    assert held[:, 0].tolist() == expected


def test_messages(world: dist.Group, aware: bool) -> None:
    needs_peers(world)
    expected = np.arange(5) + (world.rank() - 1) % SIZE
    x = fake_cupy.Array(np.arange(5) + world.rank())
    out = fake_cupy.Array(np.zeros(5, int))
    for receive in (lambda src: dist.recv_like(x, src), lambda src: dist.recv_like(x, src, out=out)):
        result = around(world, lambda dst: dist.send(x, dst), receive)
        assert_same(result.memory, expected)
    assert result is out


def test_what_the_core_gets(aware: bool) -> None:
    """The array's own memory, or host memory; the work that produces the array is done by then."""
    x = fake_cupy.Array(np.arange(6.0))
    buffer = cupy.as_buffer(x)
    assert (buffer.count, buffer.shape, buffer.on_device) == (6, (6,), aware)
    assert (buffer.owner is x) == aware
    made = fake_cupy.later(np.ones(4), np.empty(4))
    owner = cupy.as_buffer(made).owner
    assert not fake_cupy.current.pending
    assert_same(owner.memory if aware else owner, np.ones(4))
    filled = cupy.empty_like(x, (2, 3))
    assert (filled.count, filled.shape, filled.on_device) == (6, (2, 3), aware)
    strided = cupy.as_buffer(fake_cupy.Array(np.arange(6.0)[::2]))
    assert not fake_cupy.current.pending
    assert_same(strided.owner.memory if aware else strided.owner, np.arange(6.0)[::2].copy())


def test_a_stream_that_is_named_is_waited_for(aware: bool) -> None:
    stream, x = fake_cupy.Stream(), fake_cupy.Array(np.zeros(3))
    stream.pending.append(lambda: x.memory.fill(1))
    result = dist.all_sum(x, stream=stream)
    assert_same(result.memory, np.full(3, float(SIZE)))
    text = "is not a stream: pass one of x's framework"
    assert_refused([case("all_sum", text, TypeError, dist.all_sum, x, stream=number) for number in (0, "gpu")])


def test_copying_is_said_once(aware: bool, capfd: pytest.CaptureFixture[str]) -> None:
    needs_peers(WORLD)
    for _ in range(2):
        dist.all_sum(fake_cupy.Array(np.ones(3)))
    said = capfd.readouterr().err.count("arrays on cuda are copied through host memory")
    assert said == (not aware and WORLD.rank() == 0)


def test_the_library_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the variable is not set, and only for CUDA."""
    asked: list[bool] = []
    monkeypatch.delenv(config.CUDA_AWARE.name, raising=False)
    monkeypatch.setattr(_core, "cuda_aware", lambda: asked.append(True) or True)
    forget()
    assert [gpu.is_read_by_mpi("cuda"), gpu.is_read_by_mpi("cuda"), gpu.is_read_by_mpi("mps")] == [True, True, False]
    assert asked == [True]
    forget()


def test_what_the_libraries_say() -> None:
    """None of the tested libraries was built with CUDA; a group of one has no library."""
    assert not _core.cuda_aware()


def test_refused(aware: bool) -> None:
    held = np.zeros(7)
    x = fake_cupy.Array(held[:6])
    run, mixed = dist.all_sum, "both must be of the same framework"
    assert_refused(
        [
            case("all_sum", "dtype object, .*: pass one of", TypeError, run, fake_cupy.Array(np.array([None]))),
            case("all_sum", f"out is numpy.ndarray, .*: {mixed}", TypeError, run, x, out=np.zeros(6)),
            case("all_sum", f"out is parallel.Array, x is numpy.ndarray: {mixed}", TypeError, run, np.zeros(6), out=x),
            case("all_sum", "out is not contiguous", ValueError, run, x, out=fake_cupy.Array(np.zeros(12)[::2])),
            case("all_sum", "out overlaps x", ValueError, run, x, out=fake_cupy.Array(held[1:])),
            case("all_sum", r"out has shape \(5,\)", ValueError, run, x, out=fake_cupy.Array(np.zeros(5))),
        ]
    )


def test_without_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    x = Foreign(np.zeros(3))
    assert_refused([case("all_sum", "Foreign is in GPU memory: import cupy", TypeError, dist.all_sum, x)])
    assert "cupy" not in sys.modules
