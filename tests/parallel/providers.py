"""Every kind of object that can hold the same elements."""

from __future__ import annotations

import array
from collections.abc import Callable
from typing import Any

import numpy as np

NUMBERS = {"bool": bool, "int64": int, "float64": float, "complex128": complex}
TYPECODES = {np.dtype(code): code for code in "bBhHiIqQfd"}


class Subclass(np.ndarray):
    """An array of a class that NumPy does not know."""


def strided(x: np.ndarray) -> np.ndarray:
    held = np.zeros((*x.shape, 2), x.dtype)
    held[..., 0] = x
    return held[..., 0]


def negative(x: np.ndarray) -> np.ndarray:
    backwards = (..., *[slice(None, None, -1)] * x.ndim)
    return x[backwards].copy()[backwards]


def read_only(x: np.ndarray) -> np.ndarray:
    copy = x.copy()
    copy.setflags(write=False)
    return copy


def repeated(x: np.ndarray) -> np.ndarray:
    """Stride 0: the first element of ``x`` everywhere."""
    return np.broadcast_to(np.resize(x, ()) if x.size else np.zeros((), x.dtype), x.shape)


def unaligned(x: np.ndarray) -> np.ndarray:
    held = np.zeros(x.nbytes + 1, np.uint8)
    copy = np.ndarray(x.shape, x.dtype, held, 1)
    copy[...] = x
    return copy


def bytes_like(kind: type) -> Callable[[np.ndarray], Any]:
    return lambda x: kind(x.tobytes()) if x.dtype == np.uint8 and x.ndim == 1 else None


def typed_array(x: np.ndarray) -> Any:
    return array.array(TYPECODES[x.dtype], x.tobytes()) if x.dtype in TYPECODES and x.ndim == 1 else None


def view(x: np.ndarray) -> Any:
    """The buffer protocol cannot express bfloat16."""
    return None if x.dtype.name == "bfloat16" else memoryview(x)


def number(x: np.ndarray) -> Any:
    return NUMBERS[x.dtype.name](x) if x.ndim == 0 and x.dtype.name in NUMBERS else None


# Each returns an object with the elements of an array, or None if it cannot hold them.
PROVIDERS: dict[str, Callable[[np.ndarray], Any]] = {
    "contiguous": lambda x: x.copy(),
    "strided": strided,
    "Fortran order": lambda x: np.array(x, order="F"),
    "negative strides": negative,
    "read-only": read_only,
    "stride 0": repeated,
    "unaligned": unaligned,
    "subclass": lambda x: x.copy().view(Subclass),
    "bytearray": bytes_like(bytearray),
    "bytes": bytes_like(bytes),
    "array.array": typed_array,
    "memoryview": lambda x: view(x.copy()),
    "strided memoryview": lambda x: view(strided(x)),
    "number": number,
    "scalar": lambda x: x[()] if x.ndim == 0 else None,
}


def elements(provided: Any) -> np.ndarray:
    """The contents of an object, without a copy."""
    return np.asarray(memoryview(provided) if isinstance(provided, (bytes, bytearray, array.array)) else provided)


def may_be_out(provided: Any) -> bool:
    """Whether results can be written into the object."""
    if isinstance(provided, np.ndarray):
        return provided.flags.c_contiguous and provided.flags.writeable
    if isinstance(provided, memoryview):
        return provided.c_contiguous and not provided.readonly
    return isinstance(provided, (bytearray, array.array))
