"""A JAX program that knows nothing of mlxdist, for `python -m mlxdist`: JAX's own collectives between processes.

Each result is compared with that of NumPy on the whole array. Arguments: how often; "all" for all dtypes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

jax.config.update("jax_enable_x64", True)
jax.distributed.initialize()
SIZE, RANK = jax.process_count(), jax.process_index()
MESH = Mesh(np.array(jax.devices()), ("x",))
ROWS = 2 * SIZE  # of each rank

FLOATS = (np.float32, np.float64, jnp.bfloat16, np.complex64, np.complex128)
INTEGERS = (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64)


def numbers(dtype: Any, step: int) -> np.ndarray:
    """The array of all ranks, their parts one after another: whole numbers whose sums are exact in every type."""
    drawn = np.random.default_rng(step).integers(0, 4, (SIZE * ROWS, 3))
    return (drawn > 1 if dtype == np.bool_ else drawn).astype(dtype)


def sharded(array: np.ndarray, spec: P, mesh: Mesh = MESH) -> jax.Array:
    return jax.make_array_from_callback(array.shape, NamedSharding(mesh, spec), lambda index: array[index])


def check(what: str, result: jax.Array, expected: np.ndarray, within: float = 0) -> None:
    assert result.shape == expected.shape, what
    for shard in result.addressable_shards:
        got, right = (np.asarray(part).astype(np.complex128) for part in (shard.data, expected[shard.index]))
        np.testing.assert_allclose(got, right, rtol=within, err_msg=f"{what} {result.dtype}")


def parts(x: np.ndarray) -> np.ndarray:
    return x.reshape(SIZE, -1, *x.shape[1:])


def swapped(x: np.ndarray) -> np.ndarray:
    """Block j of part i becomes block i of part j."""
    return x.reshape(SIZE, SIZE, -1, *x.shape[1:]).swapaxes(0, 1).reshape(x.shape)


def shifted(x: np.ndarray) -> np.ndarray:
    """Nobody sends to rank 0, whose part is 0."""
    return np.concatenate([np.zeros_like(parts(x)[0]), *parts(x)[:-1]])


RING, LINE = ([(i, (i + 1) % SIZE) for i in range(n)] for n in (SIZE, SIZE - 1))
OVER = partial(partial, axis_name="x")
# name: what each rank does with its part, the spec of the result, the same on the whole array
CASES: dict[str, tuple[Callable[[Any], Any], P, Callable[[np.ndarray], np.ndarray]]] = {
    "psum": (OVER(lax.psum), P(), lambda x: parts(x).sum(0, dtype=x.dtype)),
    "pmax": (OVER(lax.pmax), P(), lambda x: parts(x).max(0)),
    "pmin": (OVER(lax.pmin), P(), lambda x: parts(x).min(0)),
    "pmean": (OVER(lax.pmean), P(), lambda x: (parts(x).sum(0) / SIZE).astype(x.dtype)),
    "all_gather": (lambda x: lax.all_gather(x, "x")[None], P("x"), lambda x: np.stack([parts(x)] * SIZE)),
    "tiled": (OVER(lax.all_gather, tiled=True), P("x"), lambda x: np.concatenate([x] * SIZE)),
    "psum_scatter": (OVER(lax.psum_scatter, tiled=True), P("x"), lambda x: parts(x).sum(0, dtype=x.dtype)),
    "all_to_all": (OVER(lax.all_to_all, split_axis=0, concat_axis=0, tiled=True), P("x"), swapped),
    "ring": (OVER(lax.ppermute, perm=RING), P("x"), lambda x: np.roll(x, ROWS, 0)),
    "line": (OVER(lax.ppermute, perm=LINE), P("x"), shifted),
}
ORDERED = ("pmax", "pmin")
MOVED = ("all_gather", "tiled", "all_to_all", "ring", "line")


def applies(name: str, dtype: Any) -> bool:
    if dtype == np.bool_:
        return name in MOVED
    return not (name in ORDERED and np.issubdtype(dtype, np.complexfloating)) and (name != "pmean" or dtype in FLOATS)


def collectives(repeats: int, dtypes: Sequence[Any]) -> None:
    for name, (function, spec, same) in CASES.items():
        for dtype in dtypes:
            if applies(name, dtype):
                run = jax.jit(jax.shard_map(function, mesh=MESH, in_specs=P("x"), out_specs=spec, check_vma=False))
                for step in range(repeats):
                    x = numbers(dtype, step)
                    check(name, run(sharded(x, P("x"))), same(x), within=0.01 if name == "pmean" else 0)


def scatters(repeats: int) -> None:
    """The shape of jax#40830, where most results of gloo are wrong: 4 MiB of float64 for each."""
    x = np.random.default_rng(0).standard_normal((SIZE * SIZE, 1 << 19))
    run = jax.jit(jax.shard_map(OVER(lax.psum_scatter, tiled=True), mesh=MESH, in_specs=P("x"), out_specs=P("x")))
    theirs, right = sharded(x, P("x")), parts(x).sum(0)
    first = np.asarray(run(theirs).addressable_data(0))
    np.testing.assert_allclose(first, right[RANK : RANK + 1], rtol=1e-13, atol=1e-13)
    for step in range(1, repeats):
        np.testing.assert_array_equal(np.asarray(run(theirs).addressable_data(0)), first, err_msg=f"in step {step}")


def matrices() -> None:
    """The compiler divides a product among the processes, by the shardings of its operands and of the result."""
    a, b = (np.random.default_rng(k).integers(0, 9, (4 * SIZE, 4 * SIZE)).astype(np.float64) for k in (0, 1))
    for left, right, to in (
        (P("x"), P(), P()),
        (P(None, "x"), P("x"), P()),
        (P(None, "x"), P("x"), P("x")),
        (P("x"), P(None, "x"), P("x")),
    ):
        product = jax.jit(jnp.matmul, out_shardings=NamedSharding(MESH, to))(sharded(a, left), sharded(b, right))
        check(f"{left} @ {right}", product, a @ b)


def reductions() -> None:
    """The compiler reduces what is divided."""
    x = np.random.default_rng(0).integers(1, 3, 4 * SIZE).astype(np.float64)
    for function in (jnp.sum, jnp.prod, jnp.max, jnp.min):
        check(str(function), jax.jit(function)(sharded(x, P("x"))), np.asarray(function(x)))
    for function in (jnp.all, jnp.any):
        for bools in (x > 0, x > 1, x > 2):
            check(str(function), jax.jit(function)(sharded(bools, P("x"))), np.asarray(function(bools)))


def cliques() -> None:
    """A mesh of two axes: communicators of rows, of columns and of all, in two orders."""
    x = np.arange(16.0).reshape(4, 4)
    for order in ([0, 1, 2, 3], [2, 3, 1, 0]):
        mesh = Mesh(np.array(jax.devices())[order].reshape(2, 2), ("i", "j"))
        every = P(("i", "j"))
        for axes, groups in (("i", [[0, 2], [1, 3]]), ("j", [[0, 1], [2, 3]]), (("i", "j"), [[0, 1, 2, 3]])):
            run = jax.shard_map(partial(lax.psum, axis_name=axes), mesh=mesh, in_specs=every, out_specs=every)
            expected = np.zeros_like(x)
            for group in groups:
                expected[group] = x[group].sum(0)
            check(f"psum over {axes}", jax.jit(run)(sharded(x, every, mesh)), expected)


def subsets() -> None:
    """Programs that not all processes run, and one that each runs for itself."""
    x = np.arange(6.0 * SIZE).reshape(2 * SIZE, 3)
    for chosen in ([1, 0], [0, SIZE - 1], [RANK], list(range(SIZE))):
        if RANK not in chosen:
            continue
        mesh = Mesh(np.array(jax.devices())[chosen], ("x",))
        run = jax.jit(jax.shard_map(OVER(lax.psum), mesh=mesh, in_specs=P("x"), out_specs=P()))
        mine = x[: 2 * len(chosen)] + (0 if len(chosen) > 1 else RANK)
        check(f"psum of {chosen}", run(sharded(mine, P("x"), mesh)), mine.reshape(len(chosen), 2, 3).sum(0))


def train() -> None:
    """The batch is divided among the processes, the weights are not: the compiler adds the gradients."""
    random = np.random.default_rng(0)
    x, y = random.standard_normal((16 * SIZE, 5)), random.standard_normal((16 * SIZE, 1))
    alone = weights = [random.standard_normal((5, 8)), random.standard_normal((8, 1))]

    def loss(weights: Any, x: Any, y: Any) -> Any:
        return jnp.mean((jnp.tanh(x @ weights[0]) @ weights[1] - y) ** 2)

    @jax.jit
    def step(weights: Any, x: Any, y: Any) -> Any:
        value, gradients = jax.value_and_grad(loss)(weights, x, y)
        return jax.tree.map(lambda w, g: w - 0.1 * g, weights, gradients), value

    weights = [sharded(w, P()) for w in weights]
    for _ in range(30):
        weights, value = step(weights, sharded(x, P("x")), sharded(y, P("x")))
        alone, expected = step(alone, x, y)
        np.testing.assert_allclose(float(value), float(expected), rtol=1e-12)


assert len(jax.devices()) == SIZE
collectives(int(sys.argv[1]), (*FLOATS, *INTEGERS, np.bool_) if "all" in sys.argv else (np.float32,))
scatters(int(sys.argv[1]))
matrices()
reductions()
if SIZE == 4:
    cliques()
subsets()
train()
print(f"rank {RANK} of {SIZE}: {jax.config.jax_cpu_collectives_implementation} is right\n", end="", flush=True)
