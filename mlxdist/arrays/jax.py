"""JAX arrays: read in place; a result is written to NumPy's memory, which JAX adopts without a copy.

JAX promises its compiler that arrays never change, so arrays on a GPU always go through host memory.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlxdist import _core
from mlxdist.arrays import elements, gpu
from mlxdist.arrays import numpy as host


def owns(x: object) -> bool:
    """Including the tracers that stand for arrays inside jit, grad and vmap."""
    jax = sys.modules.get("jax")
    return jax is not None and isinstance(x, jax.Array)


def is_traced(x: object) -> bool:
    """Whether ``x`` is used inside jit, grad or vmap: a tracer, or an array that does not depend on any."""
    return owns(x) and not sys.modules["jax"]._src.core.trace_state_clean()


def children(x: object) -> list[tuple[str, Any]] | None:
    """The parts of a container that is registered with ``jax.tree_util``, and how each is reached; None of a leaf."""
    tree_util = sys.modules.get("jax.tree_util")
    if tree_util is None:
        return None
    parts, _ = tree_util.tree_flatten_with_path(x, is_leaf=lambda part: part is not x)
    if parts and parts[0][1] is x:
        return None
    return [(tree_util.keystr(path), part) for path, part in parts]


def with_children(x: Any, parts: Sequence[Any]) -> Any:
    """Such a container with other parts."""
    structure = sys.modules["jax.tree_util"].tree_structure(x, is_leaf=lambda part: part is not x)
    return structure.unflatten(parts)


def as_array(call: str, x: Any) -> Any:
    """An array with values, on one device of this process; or, inside jit, grad or vmap, what stands for one."""
    jax = sys.modules["jax"]
    elements.check(call, x.dtype.name)
    if is_traced(x):
        return x
    if isinstance(x, jax.core.Tracer):
        raise TypeError(f"[{call}] x is a tracer that JAX has finished with: return it from the traced function")
    if x.is_deleted():
        raise ValueError(f"[{call}] x was donated or deleted: pass an array that still has its values")
    if not x.is_fully_addressable or len(x.devices()) > 1:
        raise TypeError(f"[{call}] x is on several devices: pass one part, x.addressable_data(0)")
    if jax.dtypes.canonicalize_dtype(x.dtype) != x.dtype:
        raise TypeError(f"[{call}] x has dtype {x.dtype}, which JAX would narrow: turn on jax_enable_x64")
    platform = next(iter(x.devices())).platform
    if platform != "cpu":
        gpu.say_staged(f"JAX arrays on {platform}", "a result cannot be written into JAX's memory")
    return x


def template(call: str, dtype: Any) -> Any:
    """JAX's own scalar types, such as jax.numpy.float32; the dtypes of its arrays are NumPy's."""
    jnp = sys.modules.get("jax.numpy")
    if jnp is None or not isinstance(dtype, type(jnp.float32)):
        return None
    return as_array(call, jnp.empty(0, dtype))


def writable(call: str, out: Any) -> Any:
    """Never."""
    raise TypeError(f"[{call}] JAX's arrays cannot be written to: use the result instead of out=")


def memory(array: Any) -> tuple[int, int, bool]:
    """It does not matter, since there is never an out."""
    return 0, 0, True


def synchronize(call: str, array: Any, stream: object) -> None:
    """Reading an array waits for it."""
    elements.no_stream(call, "JAX arrays", stream)


def as_buffer(array: Any) -> _core.Buffer:
    """On the CPU, JAX's own memory."""
    return host.as_buffer(np.asarray(array))


def empty_like(array: Any, shape: tuple[int, ...]) -> _core.Buffer:
    """A NumPy array, aligned as JAX needs it."""
    return host.empty_like(array, shape)


def result(array: Any, buffer: _core.Buffer) -> Any:
    """On the device of ``array``, and committed to it only if ``array`` is."""
    device = array.sharding if array.committed else None
    return sys.modules["jax"].device_put(buffer.owner, device, may_alias=True)


def copyto(target: Any, source: Any) -> None:
    """Into memory that JAX has not adopted yet."""
    np.copyto(target, np.asarray(source))


def is_changeable(array: Any) -> bool:
    """Never."""
    return False


def changed(array: Any) -> None:
    """Nothing to do."""


def is_on_device(array: Any) -> bool:
    """Never: they go through host memory."""
    return False
