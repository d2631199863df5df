"""CuPy arrays, and anything with ``__cuda_array_interface__``, which becomes one without a copy."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from mlxdist import _core
from mlxdist.arrays import elements, gpu
from mlxdist.arrays import numpy as host


def owns(x: object) -> bool:
    """Torch and JAX are asked first."""
    return hasattr(x, "__cuda_array_interface__")


def as_array(call: str, x: Any) -> Any:
    """A CuPy array of the same memory; CuPy waits for the stream that x names."""
    cupy = sys.modules.get("cupy")
    if cupy is None:
        raise TypeError(f"[{call}] {type(x).__name__} is in GPU memory: import cupy, which can read it")
    array = cupy.asarray(x)
    host.check(call, array.dtype)
    return array


def template(call: str, dtype: Any) -> Any:
    """CuPy's dtypes are NumPy's."""
    return None


def writable(call: str, out: Any) -> Any:
    """Any contiguous array."""
    array = as_array(call, out)
    if not array.flags.c_contiguous:
        raise ValueError(f"[{call}] out is not contiguous: pass an array in C order")
    return array


def memory(array: Any) -> tuple[int, int, bool]:
    """By its strides."""
    return elements.bounds(array.data.ptr, array.shape, array.strides, array.itemsize)


def synchronize(call: str, array: Any, stream: Any) -> None:
    """``stream`` is the cupy.cuda.Stream that produces x, if not the current one."""
    elements.finish(call, stream)


def _buffer(array: Any) -> _core.Buffer:
    _wait(array)  # CuPy reuses memory that pending work still reads
    return _core.Buffer(
        array.data.ptr, array.size, _core.type_of(array.dtype), array, tuple(array.shape), on_device=True
    )


def _wait(array: Any) -> None:
    with array.device:
        sys.modules["cupy"].cuda.get_current_stream().synchronize()


def as_buffer(array: Any) -> _core.Buffer:
    """If libmpi does not read GPU memory, a copy in host memory."""
    if not gpu.is_read_by_mpi("cuda"):
        return host.as_buffer(array.get())
    with array.device:
        return _buffer(array if array.flags.c_contiguous else array.copy(order="C"))


def empty_like(array: Any, shape: tuple[int, ...]) -> _core.Buffer:
    """In host memory, if libmpi does not read GPU memory."""
    if not gpu.is_read_by_mpi("cuda"):
        return host.empty_like(array, shape)
    with array.device:
        return _buffer(sys.modules["cupy"].empty(shape, array.dtype))


def result(array: Any, buffer: _core.Buffer) -> Any:
    """On the device of ``array``."""
    with array.device:
        return sys.modules["cupy"].asarray(buffer.owner)


def copyto(target: Any, source: Any) -> None:
    """CuPy's own copy, also from and to the host."""
    if isinstance(target, np.ndarray):
        np.copyto(target, source.get())
    elif isinstance(source, np.ndarray):
        target.set(source)
    else:
        sys.modules["cupy"].copyto(target, source)
        _wait(target)


def is_changeable(array: Any) -> bool:
    """Always."""
    return True


def changed(array: Any) -> None:
    """Nothing to do."""


def is_on_device(array: Any) -> bool:
    """Always."""
    return True


def joined(arrays: Sequence[Any]) -> Any:
    """On their device, in C order."""
    with arrays[0].device:
        return sys.modules["cupy"].concatenate([array.reshape(-1) for array in arrays])


def quotient(array: Any, n: int) -> Any:
    """CuPy's own division."""
    with array.device:
        return array / n
