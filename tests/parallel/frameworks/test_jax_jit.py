"""Operations inside jit, grad, vmap and control flow of JAX."""

from __future__ import annotations

import functools
import gc
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from parallel.reference import BITWISE, CALLS, COMPLEX, NAMES, WITH_MEAN, assert_same, mean, reduced, values
from parallel.refused import OTHER, RANK, SIZE, WORLD, assert_refused, case
from parallel.ring import needs_peers
from parallel.rooted import ROOTED

import mlxdist as dist

jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
jnp: Any = pytest.importorskip("jax.numpy", reason="JAX is not installed")
jax.config.update("jax_enable_x64", True)

NEXT, BEFORE = (RANK + 1) % SIZE, (RANK - 1) % SIZE
SHAPES = ((), (0,), (5,), (2, 3), (12 * SIZE, 3000))
ROOT = SIZE - 1
OPERATIONS: dict[str, Callable[[Any], Any]] = {
    **CALLS,
    **{
        call: lambda x, run=operation.run: run(x, ROOT)
        for call, operation in ROOTED.items()
        if call.partition(" ")[2] not in BITWISE
    },
    "all_gather": dist.all_gather,
    "sum_scatter": dist.sum_scatter,
    "broadcast": functools.partial(dist.broadcast, src=ROOT),
}
if SIZE > 1:
    OPERATIONS["sendrecv"] = functools.partial(dist.sendrecv, dst=NEXT, src=BEFORE)
PARTED = ("sum_scatter", "all_to_all", "scatter")  # x consists of a part for each rank
DIFFERENTIABLE = {call: run for call, run in OPERATIONS.items() if call.partition(" ")[2] in ("", "all_sum")}
for call in BITWISE:
    del DIFFERENTIABLE[call]


def expected(call: str, xs: list[np.ndarray]) -> np.ndarray:
    """What this rank gets of all ranks' ``xs``."""
    if call in CALLS:
        return reduced(call, xs)
    if call in ROOTED:
        own = ROOTED[call].expected(xs, RANK, ROOT)
        return xs[RANK] if own is None else own
    if call == "sum_scatter":
        return np.split(reduced("all_sum", xs), SIZE)[RANK]
    if call == "all_gather":
        return np.concatenate([np.atleast_1d(x) for x in xs])
    return xs[ROOT if call == "broadcast" else BEFORE]


def test_values() -> None:
    """Every operation on every dtype and every shape, in one program: none of these calls depends on another."""
    arguments, wanted = [], []
    kinds = [*((name, (2 * SIZE, 3)) for name in NAMES), *(("float32", shape) for shape in SHAPES)]
    for call, (name, shape) in itertools.product(OPERATIONS, kinds):
        is_parted = call not in PARTED or (shape and shape[0] % SIZE == 0)
        if is_parted and (call not in BITWISE or name not in WITH_MEAN):
            each = [values(name, shape, rank) for rank in range(SIZE)]
            arguments.append((call, jnp.asarray(each[RANK])))
            # In which order hosts multiply complex numbers decides where infinite ones give NaN
            is_ordered = "all_prod" in call and name in COMPLEX
            wanted.append(OPERATIONS[call](each[RANK]) if is_ordered else expected(call, each))
    calls = [OPERATIONS[call] for call, _ in arguments]
    results = jax.jit(lambda xs: [run(x) for run, x in zip(calls, xs, strict=True)])([x for _, x in arguments])
    for result, right in zip(results, wanted, strict=True):
        assert_same(np.asarray(result), right)


def test_order() -> None:
    """XLA runs what is ready: here calls that depend on nothing, and on long computations, of each length another."""

    def program(xs: list[Any]) -> list[Any]:
        for place, x in enumerate(xs):
            slow = jnp.sort(jnp.sin(x) + jnp.exp(-x)) * 0 + x
            xs[place] = (dist.all_sum, dist.all_max)[place % 3 > 0](slow if place % 2 else x)
        return xs

    compiled = jax.jit(program)
    for _ in range(3):
        results = compiled([jnp.full(10_000 + place, float(RANK + place)) for place in range(15)])
        for place, result in enumerate(results):
            whole = SIZE - 1 + place if place % 3 else sum(range(SIZE)) + SIZE * place
            assert set(np.unique(result)) == {whole}


def test_calls_behind_a_program_wait_for_it() -> None:
    """JAX starts it and returns."""
    compiled = jax.jit(lambda x: dist.all_sum(jnp.sort(jnp.sin(x)) * 0 + RANK)[:1])
    for i in range(5):
        total = compiled(jnp.ones(300_000))
        assert dist.all_sum(np.array([float(i)])).tolist() == [i * SIZE]
        assert total.tolist() == [sum(range(SIZE))]


def test_control_flow() -> None:
    x = jnp.arange(3.0) + RANK
    average = sum(range(SIZE)) / SIZE

    def step(carry: Any, i: Any) -> tuple[Any, Any]:
        return dist.all_sum(carry) / SIZE, dist.all_max(carry + i * RANK)[0]

    def program(x: Any) -> Any:
        scanned, largest = jax.lax.scan(step, x, jnp.arange(3))
        repeated = jax.lax.fori_loop(0, 3, lambda i, x: dist.all_sum(x) / SIZE + i, x)
        until = jax.lax.while_loop(lambda x: x[0] < 10, lambda x: dist.all_max(x) + 4, x)
        chosen = jax.lax.cond(x[2] > 1, lambda x: dist.all_sum(x), lambda x: x, x)
        return scanned, largest, repeated, until, chosen

    scanned, largest, repeated, until, chosen = jax.jit(program)(x)
    np.testing.assert_allclose(scanned, np.arange(3) + average)
    np.testing.assert_allclose(largest, [SIZE - 1, average + SIZE - 1, average + 2 * (SIZE - 1)])
    np.testing.assert_allclose(repeated, np.arange(3) + average + 3)
    assert until[0] == SIZE - 1 + 4 * np.ceil((11 - SIZE) / 4)
    np.testing.assert_allclose(chosen, np.arange(3) * SIZE + average * SIZE)


def functions(lib: Any) -> dict[str, Callable[[Any], Any]]:
    """The same functions for JAX and MLX, of each to be derived: what each rank does with a result is its own."""
    weights = lib.array(np.arange(1.0, 4 * SIZE + 1, dtype=np.float32).reshape(2 * SIZE, 2) + RANK)

    def of(call: str) -> Callable[[Any], Any]:
        def f(x: Any) -> Any:
            y = DIFFERENTIABLE[call](x * x)
            return (y * y * (weights[: y.shape[0]] if y.shape[0] <= 2 * SIZE else weights[:1])).sum()

        return f

    return {call: of(call) for call in DIFFERENTIABLE}


def test_gradients_are_those_of_mlx() -> None:
    mx: Any = pytest.importorskip("mlx.core", reason="MLX is not installed")
    x = (np.random.default_rng(RANK).normal(size=(2 * SIZE, 2))).astype(np.float32)
    wanted = {call: np.array(mx.grad(f)(mx.array(x))) for call, f in functions(mx).items()}
    ours = functions(jnp)

    @jax.jit
    def gradients(x: Any) -> dict[str, Any]:
        return {call: (jax.grad(f)(x), jax.grad(jax.checkpoint(f))(x)) for call, f in ours.items()}

    for call, pair in gradients(jnp.asarray(x)).items():
        for gradient in pair:
            np.testing.assert_allclose(gradient, wanted[call], rtol=1e-5, err_msg=call)
    np.testing.assert_allclose(jax.grad(ours["all_sum"])(jnp.asarray(x)), wanted["all_sum"], rtol=1e-5)


def test_gradients_in_a_loop() -> None:
    """d/dx of three times x -> sum of all ranks' x * x / SIZE, by MLX's rule that a sum passes the cotangent on."""

    def f(x: Any) -> Any:
        return jax.lax.scan(lambda x, _: (dist.all_sum(x * x) / SIZE, None), x, None, length=3)[0].sum()

    def once(x: np.ndarray) -> np.ndarray:
        total: np.ndarray = dist.all_sum(x * x) / SIZE
        return total

    x = np.arange(4.0) + RANK
    y, z = once(x), once(once(x))
    np.testing.assert_allclose(jax.jit(jax.grad(f))(jnp.asarray(x)), 8 * x * y * z / SIZE**3)


def test_tangents() -> None:
    x, tangent = jnp.arange(4.0) + RANK, jnp.ones(4) * (RANK + 1)
    _, out = jax.jit(lambda x, t: jax.jvp(dist.all_sum, (x,), (t,)))(x, tangent)
    assert out.tolist() == [sum(range(SIZE + 1))] * 4
    hessian = jax.jit(jax.hessian(lambda x: (dist.all_sum(x) ** 2).sum()))(x)
    assert hessian.tolist() == (np.eye(4) * 2 * SIZE).tolist()


def test_vmap() -> None:
    """As if each array of the batch had its own call."""
    each = np.random.default_rng(RANK).normal(size=(3, 2 * SIZE, 2))

    def square(run: Callable[[Any], Any], x: Any) -> Any:
        return (run(x) ** 2).sum()

    @jax.jit
    def program(each: Any) -> Any:
        return {
            call: (
                [jax.vmap(run, axis)(jnp.moveaxis(each, 0, axis)) for axis in range(3)],
                jax.vmap(jax.grad(functools.partial(square, run)))(each),
                jnp.stack([jax.grad(functools.partial(square, run))(x) for x in each]),
            )
            for call, run in DIFFERENTIABLE.items()
        }

    for call, (mapped, gradient, single) in program(jnp.asarray(each)).items():
        wanted = np.stack([OPERATIONS[call](x) for x in each])
        for result in mapped:
            np.testing.assert_allclose(result, wanted, rtol=1e-12, err_msg=call)
        np.testing.assert_allclose(gradient, single, rtol=1e-12, err_msg=call)
    np.testing.assert_allclose(jax.vmap(dist.all_sum)(jnp.asarray(each)), dist.all_sum(each), rtol=1e-12)


def test_numbers_are_gathered_in_a_batch() -> None:
    x = jnp.arange(3.0) + 10 * RANK
    gathered = jax.vmap(dist.all_gather)(x)
    assert gathered.tolist() == [[i + 10 * r for r in range(SIZE)] for i in range(3)]
    on_root = jax.vmap(lambda x: dist.gather(x, ROOT))(x)
    assert on_root.tolist() == (gathered if RANK == ROOT else x).tolist()


def test_messages() -> None:
    needs_peers(WORLD)

    @jax.jit
    def shift(x: Any) -> Any:
        if RANK == 0:
            dist.send(x, NEXT)
            return dist.recv_like(x, BEFORE)
        received = dist.recv_like(x, BEFORE)
        assert dist.send(x + 1, NEXT).shape == x.shape
        return received

    for shape in ((), (3,), (0,), (600, 600)):
        assert set(np.unique(shift(jnp.full(shape, float(RANK))))) <= {BEFORE + (BEFORE > 0)}


def test_average_gradients() -> None:
    tree = {name: [jnp.asarray(values(name, shape, RANK)) for shape in SHAPES[:4]] for name in WITH_MEAN}
    averaged = jax.jit(dist.average_gradients)({"a": tree, "b": None})["a"]
    for name in WITH_MEAN:
        for result, shape in zip(averaged[name], SHAPES, strict=False):
            assert_same(np.asarray(result), mean([values(name, shape, r) for r in range(SIZE)]))

    @jax.jit
    def step(parameters: Any, x: Any) -> Any:
        return dist.average_gradients(jax.grad(lambda p: ((x @ p["w"] + p["b"]) ** 2).sum())(parameters))

    gradient = step({"w": jnp.ones((2, 2)), "b": jnp.ones(2)}, jnp.ones((1, 2)) * RANK)
    assert gradient["b"].tolist() == pytest.approx([2 * np.mean([2 * r + 1 for r in range(SIZE)])] * 2)


def test_groups_live_as_long_as_programs() -> None:
    groups = [WORLD.split(RANK % 2)]
    compiled = jax.jit(lambda x: dist.all_sum(x, group=groups[0]))
    expected = sum(range(RANK % 2, SIZE, 2))
    assert compiled(float(RANK)) == expected
    groups.clear()
    gc.collect()
    assert compiled(float(RANK)) == expected
    static = jax.jit(lambda x, group: dist.all_sum(x, group=group), static_argnums=1)
    assert static(float(RANK), WORLD) == sum(range(SIZE))


def test_arrays_that_depend_on_nothing_traced() -> None:
    """Communicated each time the program runs."""
    held = jnp.ones(3)
    compiled = jax.jit(lambda x: dist.all_sum(held) + x)
    for i in range(2):
        assert compiled(float(i)).tolist() == [SIZE + i] * 3


def test_refused_while_traced() -> None:
    x = jnp.ones(3)
    leaked: list[Any] = []
    jax.jit(lambda x: leaked.append(x))(x)
    with_out = jax.jit(lambda x: dist.all_sum(x, out=x))
    scatter = "axis 0 is not divisible by the group's size"
    cases = [
        case("all_sum", "dtype int4, .*: pass one of", TypeError, jax.jit(dist.all_sum), jnp.ones(3, jnp.int4)),
        case("all_sum", "JAX's arrays cannot be written to", TypeError, with_out, x),
        case("all_sum", "JAX arrays have no streams", TypeError, jax.jit(lambda x: dist.all_sum(x, stream=0)), x),
        *(
            case(call, "leave out wait=False inside jit", TypeError, jax.jit(functools.partial(run, wait=False)), x)
            for call, run in (("all_sum", dist.all_sum), ("average_gradients", dist.average_gradients))
        ),
        case("all_sum", "x is a tracer that JAX has finished with", TypeError, lambda: dist.all_sum(leaked[0])),
        case("broadcast", f"src={SIZE} is not in the group", ValueError, jax.jit(lambda x: dist.broadcast(x, SIZE)), x),
    ]
    if SIZE > 1:
        lower = jax.jit(dist.all_sum).trace(x).lower
        cases += [
            case("sum_scatter", scatter, ValueError, jax.jit(dist.sum_scatter), jnp.ones(SIZE + 1)),
            case("sum_scatter", scatter, ValueError, jax.vmap(dist.sum_scatter), jnp.ones((SIZE, SIZE + 1))),
            case(
                "reduce",
                'op="max" has no gradient',
                ValueError,
                jax.grad(lambda x: dist.reduce(x, 0, op="max").sum()),
                x,
            ),
            case("all_max", "in reverse only", TypeError, jax.jvp, dist.all_max, (x,), (x,)),
            case("send", "use sendrecv", TypeError, jax.jit(jax.grad(lambda x: dist.send(x, OTHER).sum())), x),
            case("all_sum", "for cuda: .*outside of jit", NotImplementedError, lower, lowering_platforms=("cuda",)),
        ]
    assert_refused(cases)


def test_failures() -> None:
    """With the text of any other; calls on other groups go on."""
    needs_peers(WORLD)
    group = WORLD.split(0)
    compiled = jax.jit(lambda x: dist.all_sum(x, group=group))
    shape = 3 + (RANK == 0)
    with pytest.raises(RuntimeError, match=r"INVALID_ARGUMENT: \[all_sum\] the ranks differ(.|\n)*float32 \(4,\)"):
        compiled(jnp.ones(shape, "float32")).block_until_ready()
    with pytest.raises(dist.MismatchError, match="broken by an earlier error"):
        dist.all_sum(np.ones(3), group=group)
    assert jax.jit(dist.all_sum)(1.0) == SIZE
    with pytest.raises(RuntimeError, match=r"\[all_sum\] this group was broken by an earlier error"):
        compiled(jnp.ones(5)).block_until_ready()
    again = WORLD.split(0)
    assert jax.jit(lambda x: dist.all_sum(x, group=again))(1.0) == SIZE
    assert jax.jit(dist.all_sum)(2.0) == 2 * SIZE
