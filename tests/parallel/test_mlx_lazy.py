"""Lazy, compiled, differentiated, vmapped, on other streams and threads: MLX's transformations on mlxdist's groups."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mlxdist as dist

mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
dist.install()

MLX = tuple(int(part) for part in mx.__version__.split(".")[:3])
COMPILED = pytest.mark.parametrize("transform", [lambda function: function, mx.compile], ids=["as it is", "compiled"])
Transform = Callable[[Callable[..., Any]], Callable[..., Any]]


def row(rank: int, length: int = 4) -> np.ndarray:
    """Small integers for rank ``rank``; their sums are exact."""
    return np.arange(1.0, length + 1) * (rank + 1)


def total(world: dist.Group, length: int = 4) -> np.ndarray:
    return sum((row(rank, length) for rank in range(world.size())), np.zeros(length))


def mine(world: dist.Group, length: int = 4) -> Any:
    return mx.array(row(world.rank(), length), dtype=mx.float32)


def scattered(x: np.ndarray, world: dist.Group) -> np.ndarray:
    return np.split(x, world.size())[world.rank()]


def same(actual: Any, expected: np.ndarray | list[Any] | float) -> None:
    np.testing.assert_array_equal(np.array(actual), expected)


def test_what_is_dropped_does_not_communicate(world: dist.Group) -> None:
    x = mine(world, 2 * world.size())
    if world.rank() == 0:
        for call in (dist.all_sum, dist.all_max, dist.all_gather, dist.sum_scatter, mx.distributed.all_sum):
            call(x * 100)
        dist.broadcast(x, world.size() - 1)
        if world.size() > 1:
            dist.send(x, 1)
            dist.recv_like(x, 1)
    same(dist.all_sum(x), total(world, 2 * world.size()))


def test_evaluation_orders_communication(world: dist.Group) -> None:
    """Built in a different order on every other rank, but evaluated in the same order."""
    signs = (1, -1) if world.rank() % 2 else (-1, 1)
    sums = {sign: dist.all_sum(sign * mine(world)) for sign in signs}
    for sign in (1, -1):
        mx.eval(sums[sign])
        same(sums[sign], sign * total(world))


def test_async_eval_returns_before_the_others_arrive(world: dist.Group) -> None:
    if dist.info().threads not in ("MPI_THREAD_MULTIPLE", ""):
        pytest.skip("this MPI lets one thread communicate at a time")
    summed = dist.all_sum(mine(world))
    if world.rank() == 0:
        mx.async_eval(summed)
        for rank in range(1, world.size()):
            dist.send(np.ones(1), rank)
    else:
        dist.recv((1,), np.float64, 0)  # this rank arrives only then
    same(summed, total(world))


def test_compiled_step_with_state(world: dist.Group) -> None:
    state = [mx.zeros((4,))]

    @functools.partial(mx.compile, inputs=state, outputs=state)
    def step(x: Any) -> Any:
        state[0] = state[0] + dist.all_sum(x)
        return mx.distributed.all_max(state[0]).sum()

    for calls in range(1, 5):
        largest = step(calls * mine(world))
        same(state[0], total(world) * sum(range(1, calls + 1)))
        same(largest, total(world).sum() * sum(range(1, calls + 1)))


def test_compiled_calls_alike_but_for_group_and_meaning_stay_apart(world: dist.Group) -> None:
    length = 2 * world.size()
    part = world.split(world.rank() % 2)

    @mx.compile
    def step(x: Any) -> Any:
        everybodys = (dist.all_sum(x), dist.all_max(x), dist.sum_scatter(x), dist.all_gather(x))
        roots = tuple(dist.broadcast(x, src) for src in range(world.size()))
        return everybodys, roots, dist.all_sum(x, group=part), dist.all_sum(x)

    for factor in (1, 2):
        (summed, largest, share, whole), roots, parts, again = step(mine(world, length) * factor)
        rows = [row(rank, length) * factor for rank in range(world.size())]
        same(summed, sum(rows))
        same(largest, rows[-1])
        same(share, scattered(total(world, length) * factor, world))
        same(whole, np.concatenate(rows))
        same(roots, rows)
        same(parts, sum(rows[world.rank() % 2 :: 2]))
        same(again, sum(rows))


def pulled_back(transform: Transform, function: Callable[..., Any], x: Any, cotangent: np.ndarray) -> tuple[Any, Any]:
    """The value of ``function`` at x, and its vector-Jacobian product with the cotangent."""

    def both(x: Any, cotangent: Any) -> tuple[Any, Any]:
        (value,), (gradient,) = mx.vjp(function, [x], [cotangent])
        return value, gradient

    value, gradient = transform(both)(x, mx.array(cotangent, dtype=mx.float32))
    return value, gradient


@COMPILED
def test_gradient_through_all_sum(world: dist.Group, transform: Transform) -> None:
    """The cotangent comes back unchanged: MLX leaves summing it to the program."""
    value, gradient = pulled_back(transform, dist.all_sum, mine(world), row(world.rank()))
    same(value, total(world))
    same(gradient, row(world.rank()))


@COMPILED
def test_gradient_through_all_gather(world: dist.Group, transform: Transform) -> None:
    """This rank's part of the cotangent."""
    rows = np.concatenate([row(rank) for rank in range(world.size())])
    value, gradient = pulled_back(transform, dist.all_gather, mine(world), 10 * rows)
    same(value, rows)
    same(gradient, 10 * row(world.rank()))


@COMPILED
def test_gradient_through_sum_scatter(world: dist.Group, transform: Transform) -> None:
    """The cotangents of all ranks, concatenated."""
    length = 2 * world.size()
    value, gradient = pulled_back(transform, dist.sum_scatter, mine(world, length), row(world.rank(), 2))
    same(value, scattered(total(world, length), world))
    same(gradient, np.concatenate([row(rank, 2) for rank in range(world.size())]))


@COMPILED
def test_gradient_through_broadcast(world: dist.Group, transform: Transform) -> None:
    """The sum of all ranks' cotangents on src, zeros elsewhere; every rank takes part in that sum."""
    for src in {0, world.size() - 1}:
        spread = functools.partial(dist.broadcast, src=src)
        value, gradient = pulled_back(transform, spread, mine(world), row(world.rank()))
        same(value, row(src))
        same(gradient, total(world) if world.rank() == src else np.zeros(4))


def test_gradient_of_two_arrays_in_one_step(world: dist.Group) -> None:
    def loss(x: Any, y: Any) -> Any:
        return (dist.sum_scatter(x) * dist.sum_scatter(y)).sum() + (dist.broadcast(x, 0) * y).sum()

    length = world.size()
    x, y = row(world.rank(), length), row(world.rank(), length) + 1
    by_x, by_y = mx.grad(loss, argnums=(0, 1))(*(mx.array(a, dtype=mx.float32) for a in (x, y)))
    x_total = total(world, length)
    y_total = x_total + world.size()
    same(by_x, y_total + (y_total if world.rank() == 0 else 0))
    same(by_y, x_total + row(0, length))


def test_jvp(world: dist.Group) -> None:
    x, tangent = mine(world, world.size()), mine(world, world.size()) * 3
    expected = 3 * total(world, world.size())
    same(mx.jvp(dist.all_sum, [x], [tangent])[1][0], expected)
    same(mx.jvp(dist.sum_scatter, [x], [tangent])[1][0], scattered(expected, world))
    same(mx.jvp(lambda x: dist.broadcast(x, 0), [x], [tangent])[1][0], 3 * row(0, world.size()))


@pytest.mark.parametrize("axis", [0, 1])
def test_vmap(world: dist.Group, axis: int) -> None:
    n = world.size()
    batch = np.stack([row(world.rank(), 2 * n) * factor for factor in (1, 10, 100)], axis)
    x = mx.array(batch, dtype=mx.float32)
    expected = np.stack([total(world, 2 * n) * factor for factor in (1, 10, 100)])
    same(mx.vmap(dist.all_sum, in_axes=axis)(x), expected)
    same(mx.vmap(dist.sum_scatter, in_axes=axis)(x), np.split(expected, n, 1)[world.rank()])
    src = n - 1
    same(mx.vmap(lambda x: dist.broadcast(x, src), in_axes=axis)(x), [row(src, 2 * n) * k for k in (1, 10, 100)])


def test_gradient_through_vmap(world: dist.Group) -> None:
    n = world.size()
    x = mx.stack([mine(world, n), mine(world, n) * 10])
    weights = mx.array([[1.0], [2.0]]) * (world.rank() + 1)
    gradient = mx.grad(lambda x: (mx.vmap(dist.sum_scatter)(x) * weights).sum())(x)
    same(gradient, np.outer([1, 2], np.arange(1, n + 1)))
    src = n - 1
    gradient = mx.grad(lambda x: (mx.vmap(lambda x: dist.broadcast(x, src))(x) * weights).sum())(x)
    same(gradient, np.outer([1, 2], np.full(n, sum(range(1, n + 1)) if world.rank() == src else 0)))


def test_vmap_of_a_matrix_sum_scatter(world: dist.Group) -> None:
    n = world.size()
    numbers = np.arange(2.0 * 3 * (2 * n)).reshape(3, 2 * n, 2) * (world.rank() + 1)
    expected = np.arange(2.0 * 3 * (2 * n)).reshape(3, 2 * n, 2) * sum(range(1, n + 1))
    result = mx.vmap(dist.sum_scatter, out_axes=1)(mx.array(numbers, dtype=mx.float32))
    same(result, np.moveaxis(np.split(expected, n, 1)[world.rank()], 0, 1))


def factors(world: dist.Group) -> np.ndarray:
    """Of each rank; the second product is zero because of one rank, the third because of all."""
    made = np.stack([row(rank) for rank in range(world.size())])
    made[-1, 1] = made[:, 2] = 0
    return made


def others(each: np.ndarray, world: dist.Group) -> np.ndarray:
    return np.asarray(np.delete(each, world.rank(), 0).prod(0))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "complex64", "float32, compiled"])
def test_derivatives_of_a_product(world: dist.Group, dtype: str) -> None:
    """Each rank's is that of its own result, right where elements are zero."""
    name, _, compiled = dtype.partition(", ")
    if compiled and world.size() > 2:
        pytest.skip("the same on 2 ranks, where it takes less long")
    each = factors(world)
    x = mx.array(each[world.rank()], dtype=mx.float32).astype(getattr(mx, name))
    weight = mx.array(world.rank() + 1.0).astype(x.dtype)

    def derivatives(x: Any) -> Any:
        change = mx.ones_like(x) * weight
        return mx.vjp(dist.all_prod, [x], [change])[1][0], mx.jvp(dist.all_prod, [x], [change])[1][0]

    gradient, pushed = (mx.compile(derivatives) if compiled else derivatives)(x)
    same(gradient.astype(mx.complex64), (world.rank() + 1) * others(each, world))
    changes = sum(np.delete(each, rank, 0).prod(0) * (rank + 1) for rank in range(world.size()))
    same(pushed.astype(mx.complex64), changes)


def test_the_gradient_of_a_product_of_complex_numbers_is_that_of_mlx(world: dist.Group) -> None:
    each = [mx.array([complex(1, rank), complex(0, 2)]) for rank in range(world.size())]
    cotangent = mx.array([1j, 2 - 1j])

    def product(x: Any) -> Any:
        return functools.reduce(mx.multiply, [x if rank == world.rank() else y for rank, y in enumerate(each)])

    x = each[world.rank()]
    found, expected = (mx.vjp(of, [x], [cotangent])[1][0] for of in (dist.all_prod, product))
    np.testing.assert_allclose(np.array(found), np.array(expected), rtol=1e-6)


@pytest.mark.parametrize("axis", [0, 1])
def test_vmap_of_a_product(world: dist.Group, axis: int) -> None:
    each = factors(world)
    batch = mx.array(np.stack([each[world.rank()], each[world.rank()] + 1], axis), dtype=mx.float32)
    same(mx.vmap(dist.all_prod, in_axes=axis)(batch), [each.prod(0), (each + 1).prod(0)])
    gradient = mx.vmap(mx.grad(lambda x: dist.all_prod(x).sum()), in_axes=axis)(batch)
    same(gradient, [others(each, world), others(each + 1, world)])


@COMPILED
def test_bits(world: dist.Group, transform: Transform) -> None:
    """They have no derivative; floats are refused when the call is made."""
    x = mx.array([0b110, 1 << world.rank()])
    ranks = range(world.size())
    for call, expected in (
        (dist.all_band, [6, int(world.size() == 1)]),
        (dist.all_bor, [6, sum(1 << r for r in ranks)]),
    ):
        same(transform(call)(x), expected)
        same(mx.vmap(call)(mx.stack([x, x])), [expected] * 2)
        gradient = mx.grad(lambda x, call=call: (call(x.astype(mx.int32)) + x).sum())(x.astype(mx.float32))
        same(gradient, [1, 1])
        with pytest.raises(TypeError, match=r"has dtype mlx.core.float32, which is not combined bit by bit: pass"):
            call(mx.ones(3))


def test_checkpoint_communicates_again(world: dist.Group) -> None:
    def block(x: Any) -> Any:
        return dist.all_sum(x) ** 2

    value, gradient = mx.value_and_grad(lambda x: mx.checkpoint(block)(x).sum())(mine(world))
    same(value, (total(world) ** 2).sum())
    same(gradient, 2 * total(world))


def test_streams(world: dist.Group) -> None:
    with mx.stream(mx.cpu):
        same(dist.all_sum(mine(world)), total(world))
    stream = mx.new_stream(mx.cpu)
    with mx.stream(stream):
        same(mx.distributed.all_sum(mine(world)), total(world))
    for given in (mx.cpu, stream):
        same(dist.all_sum(mine(world), stream=given), total(world))
        same(dist.sum_scatter(mine(world, world.size()), stream=given), scattered(total(world, world.size()), world))
        same(dist.broadcast(mine(world), 0, stream=given), row(0))


def test_another_thread(world: dist.Group) -> None:
    results: list[Any] = []

    def work() -> None:
        results.extend(dist.all_sum(mine(world) * factor).tolist() for factor in range(1, 4))
        results.append(dist.broadcast(mine(world), 0).tolist())

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    same(results, [total(world) * 1, total(world) * 2, total(world) * 3, row(0)])


def test_two_threads_with_a_group_each(world: dist.Group) -> None:
    if dist.info().threads not in ("MPI_THREAD_MULTIPLE", ""):
        pytest.skip("this MPI lets one thread communicate at a time")
    groups = [world.split(0) for _ in range(2)]
    results: dict[int, Any] = {}

    def work(place: int) -> None:
        stream = mx.new_stream(mx.cpu)
        x = mine(world)
        for _ in range(10):
            x = dist.all_max(dist.all_sum(x, group=groups[place], stream=stream), group=groups[place], stream=stream)
        results[place] = x.tolist()

    threads = [threading.Thread(target=work, args=(place,)) for place in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    same([results[0], results[1]], [total(world) * world.size() ** 9] * 2)
