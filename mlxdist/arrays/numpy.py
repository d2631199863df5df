"""NumPy arrays, and whatever NumPy can look at without a copy."""

from __future__ import annotations

from typing import Any

import numpy as np

from mlxdist import _core

NUMBERS = (bool, int, float, complex)


def owns(x: object) -> bool:
    """Every array that NumPy made, of any subclass."""
    return isinstance(x, np.ndarray)


def adopt(call: str, x: Any) -> np.ndarray:
    """Any buffer or number as an array: bytes-like objects are looked at, not copied."""
    if isinstance(x, np.ndarray):
        return x
    if isinstance(x, (*NUMBERS, np.generic)):
        return np.asarray(x)
    try:
        view = memoryview(x)
    except TypeError:
        raise TypeError(
            f"[{call}] {type(x).__name__} is no array: give a NumPy array, an mx.array, a buffer or a number"
        ) from None
    return np.asarray(view)


def is_memory(x: object) -> bool:
    """Whether ``x`` is an array or another buffer, not a number."""
    if isinstance(x, (*NUMBERS, np.generic)):
        return False
    try:
        memoryview(x)  # type: ignore[arg-type]
    except TypeError:
        return owns(x)
    except ValueError:  # dtypes that the buffer protocol cannot express, bfloat16 for one
        return owns(x)
    return True


def new(call: str, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
    """An uninitialised array of a dtype in NumPy's sense."""
    try:
        return _core.empty(shape, np.dtype(dtype))
    except TypeError:
        raise TypeError(f"[{call}] dtype={dtype!r} is no dtype of NumPy or MLX") from None


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
    return _core.buffer_of(np.ascontiguousarray(x))


def like(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An uninitialised array of ``x``'s dtype."""
    return _core.empty(shape, x.dtype)


def ordered(call: str, stream: object) -> None:
    """NumPy has finished before it returns."""
    if stream is not None:
        raise TypeError(f"[{call}] stream={stream!r}: NumPy arrays have no streams, leave it out")
