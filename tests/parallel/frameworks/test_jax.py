"""What is special about JAX arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parallel.refused import COLLECTIVES, OTHER, SIZE, WORLD, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import _core
from mlxdist.arrays import jax as ours

jax: Any = pytest.importorskip("jax", reason="JAX is not installed")
jnp: Any = pytest.importorskip("jax.numpy", reason="JAX is not installed")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (5,), (3, 4)])
def test_nothing_is_copied(dtype: str, shape: tuple[int, ...]) -> None:
    """x is read from JAX's memory, and JAX takes over the memory of the result."""
    x = jnp.ones(shape, dtype)
    read = ours.as_buffer(x).owner
    assert read.ctypes.data == x.unsafe_buffer_pointer()
    assert not read.flags.writeable
    filled = ours.empty_like(x, (2, *shape))
    filled.owner[...] = 1
    result = ours.result(x, filled)
    assert result.unsafe_buffer_pointer() == filled.owner.ctypes.data
    assert result.sharding == x.sharding
    assert result.committed == x.committed
    assert result.tolist() == jnp.ones((2, *shape), dtype).tolist()


def test_results_stay_when_ours_are_gone() -> None:
    results = [dist.all_sum(jnp.full(1000, i, jnp.float32)) for i in range(20)]
    for i, result in enumerate(results):
        assert set(result.tolist()) == {float(i * SIZE)}


def test_inputs() -> None:
    x, used = jnp.ones(3), jnp.ones(3)
    used.delete()
    assert_refused(
        [
            case("all_sum", "x was donated or deleted: pass", ValueError, dist.all_sum, used),
            case("all_sum", r"dtype key<fry>, .*: pass one of", TypeError, dist.all_sum, jax.random.key(0)),
            case("all_sum", "dtype int4, .*: pass one of", TypeError, dist.all_sum, jnp.ones(3, jnp.int4)),
            case("all_sum", "JAX arrays have no streams", TypeError, dist.all_sum, x, stream=0),
            case("all_sum", "which JAX would narrow: turn on jax_enable_x64", TypeError, narrowed),
        ]
    )


def narrowed() -> Any:
    with jax.enable_x64(True):
        x = jnp.ones(3, jnp.float64)
    with jax.enable_x64(False):
        return dist.all_sum(x)


def test_outputs() -> None:
    x = jnp.ones(3, jnp.float32)
    cannot = "JAX's arrays cannot be written to: use the result instead of out="
    mixed = "both must be of the same framework"
    assert_refused(
        [
            *(
                case(call, cannot, TypeError, run, x, out=x)
                for call, run in COLLECTIVES.items()
                if call != "sum_scatter"
            ),
            case(
                "all_sum", f"out is numpy.ndarray, .*: {mixed}", TypeError, dist.all_sum, x, out=np.ones(3, np.float32)
            ),
            case(
                "all_sum",
                f"out is jaxlib.ArrayImpl, .*: {mixed}",
                TypeError,
                dist.all_sum,
                np.ones(3, np.float32),
                out=x,
            ),
        ]
    )


def test_what_cannot_be_received() -> None:
    needs_peers(WORLD)
    assert_refused([case("recv", "larger than memory", ValueError, dist.recv, 2**62, jnp.float32, OTHER)])


def test_dtypes_of_arrays_are_numpys() -> None:
    """x.dtype is a np.dtype and gives a NumPy array; jnp.float32 is JAX's own type."""
    assert isinstance(ours.template("recv", jnp.float32), jax.Array)
    assert ours.template("recv", jnp.ones(3).dtype) is None
    assert _core.type_of(jnp.ones(3, jnp.bfloat16).dtype) == _core.DTYPES.index("bfloat16")
