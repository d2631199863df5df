"""NumPy arrays, and what is converted to one: buffers and DLPack exporters without a copy, numbers as 0-d arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlxdist import _core
from mlxdist.arrays import elements

NUMBERS = tuple(_core.DTYPE_OF_NUMBER)
DLPACK_CPU = 1


def owns(x: object) -> bool:
    """NumPy arrays, of any subclass; ``as_array`` takes more."""
    return isinstance(x, np.ndarray)


def as_array(call: str, x: Any) -> np.ndarray:
    """Any array, buffer, DLPack exporter or number, with a dtype that can be communicated; not of a subclass."""
    array = _seen(call, x)
    check(call, array.dtype)
    return array


def _seen(call: str, x: Any) -> np.ndarray:
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"[{call}] a masked array would lose its mask: pass x.filled()")
    if isinstance(x, (np.ndarray, np.generic)):
        return np.asarray(x)
    if isinstance(x, NUMBERS):
        try:
            return np.asarray(x, next(dtype for kind, dtype in _core.DTYPE_OF_NUMBER.items() if isinstance(x, kind)))
        except OverflowError:
            raise ValueError(f"[{call}] x={x} does not fit into int64: pass a float, or np.uint64(x)") from None
    try:
        return np.asarray(memoryview(x))
    except TypeError:
        pass
    if hasattr(x, "__dlpack__"):
        return _exported(call, x)
    raise TypeError(
        f"[{call}] a {type(x).__name__} is not an array: pass an array of NumPy, MLX, PyTorch, JAX or CuPy, a buffer "
        "or a number"
    )


def _exported(call: str, x: Any) -> np.ndarray:
    name = type(x).__name__
    if x.__dlpack_device__()[0] != DLPACK_CPU:
        raise TypeError(f"[{call}] {name} is not in host memory: pass cupy.from_dlpack(x) or torch.from_dlpack(x)")
    try:
        return np.from_dlpack(x)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise TypeError(f"[{call}] {name} cannot be read by NumPy ({error}): pass a NumPy array") from None


def template(call: str, dtype: Any) -> np.ndarray | None:
    """Whatever NumPy accepts as a dtype, except None, which it takes for float64."""
    try:
        wanted = None if dtype is None else np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        wanted = None
    if wanted is None:
        return None
    check(call, wanted)
    return np.empty(0, wanted)


def check(call: str, dtype: np.dtype[Any]) -> None:
    """Refuse dtypes whose elements cannot be added."""
    if _core.type_of(dtype) >= 0:
        return
    if _core.type_of(dtype.newbyteorder("=")) >= 0:
        raise TypeError(
            f"[{call}] x has dtype {dtype.str}, not in this machine's byte order: "
            "pass x.astype(x.dtype.newbyteorder('='))"
        )
    raise elements.refused(call, dtype)


def writable(call: str, out: Any) -> np.ndarray:
    """An array, a buffer or a DLPack exporter, not a number."""
    is_number = isinstance(out, (*NUMBERS, np.generic))
    try:
        if is_number:
            raise TypeError
        array = _seen(call, out)
    except TypeError:
        raise TypeError(
            f"[{call}] out is {type(out).__name__}, which cannot be written to: pass an array like x"
        ) from None
    if not array.flags.c_contiguous:
        raise ValueError(f"[{call}] out is not contiguous: pass an array in C order")
    if not array.flags.writeable:
        raise ValueError(f"[{call}] out is read-only: pass a writable array")
    return array


def memory(array: np.ndarray) -> tuple[int, int, bool]:
    """By its strides."""
    return elements.bounds(array.ctypes.data, array.shape, array.strides, array.itemsize)


def synchronize(call: str, array: np.ndarray, stream: object) -> None:
    """NumPy has no streams: its work is finished when it returns."""
    elements.no_stream(call, "NumPy arrays", stream)


def as_buffer(array: np.ndarray) -> _core.Buffer:
    """A copy also of unaligned arrays, such as views into a buffer: the kernels need aligned elements."""
    if not (array.flags.c_contiguous and array.flags.aligned):
        array = np.require(array, requirements=["C", "A"])
    return _core.buffer_of(array)


def empty_like(array: np.ndarray, shape: tuple[int, ...]) -> _core.Buffer:
    """Aligned to a cache line."""
    return _core.buffer_of(_core.empty(shape, array.dtype))


def result(array: np.ndarray, buffer: _core.Buffer) -> Any:
    """The filled array itself."""
    return buffer.owner


def copyto(target: np.ndarray, source: np.ndarray) -> None:
    """NumPy's own copy."""
    np.copyto(target, source)


def is_changeable(array: np.ndarray) -> bool:
    """Unless it is read-only."""
    return array.flags.writeable


def changed(array: np.ndarray) -> None:
    """Nothing to do."""


def is_on_device(array: np.ndarray) -> bool:
    """Never."""
    return False
