"""NumPy arrays, and what becomes one: buffers are looked at without a copy, numbers are 0-d arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlxdist import _core

# Whatever its value, so that all ranks have the same: NumPy by itself makes 2**63 a uint64. A bool is an int too.
DTYPE_OF = ((bool, np.bool_), (int, np.int64), (float, np.float64), (complex, np.complex128))
NUMBERS = tuple(number for number, _ in DTYPE_OF)


def owns(x: object) -> bool:
    """Every array that NumPy made, of any subclass."""
    return isinstance(x, np.ndarray)


def adopt(call: str, x: Any) -> np.ndarray:
    """Any buffer or number as an array: bytes-like objects are looked at, not copied."""
    if isinstance(x, np.ma.MaskedArray):
        raise TypeError(f"[{call}] a masked array would lose its mask: give x.filled()")
    if isinstance(x, np.ndarray):
        return x
    if isinstance(x, np.generic):
        return np.asarray(x)
    if isinstance(x, NUMBERS):
        try:
            return np.asarray(x, dtype=next(dtype for number, dtype in DTYPE_OF if isinstance(x, number)))
        except OverflowError:
            raise ValueError(f"[{call}] x={x} does not fit into int64: give a float, or np.uint64(x)") from None
    try:
        view = memoryview(x)
    except TypeError:
        raise TypeError(
            f"[{call}] {type(x).__name__} is no array: give a NumPy array, an mx.array, a buffer or a number"
        ) from None
    return np.asarray(view)


def is_memory(x: object) -> bool:
    """Whether ``x`` is an array or another buffer, not a number."""
    if owns(x) or isinstance(x, (*NUMBERS, np.generic)):
        return owns(x)
    try:
        memoryview(x)  # type: ignore[arg-type]
    except TypeError:
        return False
    return True


def new(call: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array of a dtype in NumPy's sense."""
    try:
        if dtype is None:
            raise TypeError  # to NumPy it is float64
        wanted = np.dtype(dtype)
    except (TypeError, ValueError, SyntaxError):
        raise TypeError(
            f"[{call}] dtype={dtype!r} is no dtype of NumPy or MLX: give one of {', '.join(_core.DTYPES)}"
        ) from None
    check(call, np.empty(0, wanted))
    try:
        return _core.empty(shape, wanted)
    except (OverflowError, ValueError):
        raise ValueError(f"[{call}] shape={shape} is larger than memory can be: give the shape that was sent") from None


def check(call: str, x: np.ndarray) -> None:
    """Refuse what has no numbers that could be added."""
    if _core.type_of(x.dtype) >= 0:
        return
    if _core.type_of(x.dtype.newbyteorder("=")) >= 0:
        raise TypeError(
            f"[{call}] x has dtype {x.dtype.str}, not in this machine's byte order: "
            "give x.astype(x.dtype.newbyteorder('='))"
        )
    raise TypeError(
        f"[{call}] x has dtype {x.dtype}, which cannot be communicated: give one of {', '.join(_core.DTYPES)}"
    )


def pointer(x: np.ndarray) -> _core.Buffer:
    """The elements of ``x`` in C order."""
    return _core.buffer_of(np.require(x, requirements=["C", "A"]))


def like(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised array of ``x``'s dtype."""
    return _core.empty(shape, x.dtype)


def ordered(call: str, stream: object) -> None:
    """NumPy has finished before it returns."""
    if stream is not None:
        raise TypeError(f"[{call}] stream={stream!r}: NumPy arrays have no streams, leave it out")
