"""A stand-in for CuPy, since the tests have no GPU: its device memory is host memory that NumPy cannot see directly.

Work on a stream is done when the stream is synchronized; until then a copy holds zeros.
"""

from __future__ import annotations

import contextlib
import types
from collections.abc import Callable
from typing import Any

import numpy as np


class Stream:
    """Runs its queued work when it is synchronized."""

    def __init__(self) -> None:
        self.pending: list[Callable[[], None]] = []

    def synchronize(self) -> None:
        while self.pending:
            self.pending.pop(0)()


class Array:
    """The part of cupy.ndarray that mlxdist uses."""

    device = contextlib.nullcontext()

    def __init__(self, memory: np.ndarray) -> None:
        self.memory = memory

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return self.memory.__array_interface__ | {"version": 3}

    @property
    def data(self) -> Any:
        return types.SimpleNamespace(ptr=self.memory.ctypes.data)

    @property
    def flags(self) -> Any:
        return self.memory.flags

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.memory.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        return self.memory.shape

    @property
    def strides(self) -> tuple[int, ...]:
        return self.memory.strides

    @property
    def itemsize(self) -> int:
        return self.memory.itemsize

    @property
    def size(self) -> int:
        return self.memory.size

    def reshape(self, shape: Any) -> Array:
        current.synchronize()
        return Array(self.memory.reshape(shape))

    def __getitem__(self, place: slice) -> Array:
        return Array(self.memory[place])

    def __truediv__(self, n: int) -> Array:
        current.synchronize()
        return Array(self.memory / n)

    def copy(self, order: str = "C") -> Array:
        return later(self.memory, np.zeros(self.shape, self.dtype))

    def get(self) -> np.ndarray:
        current.synchronize()
        return self.memory.copy()

    def set(self, x: np.ndarray) -> None:
        current.synchronize()
        self.memory[...] = x


current = Stream()


def later(source: np.ndarray, target: np.ndarray) -> Array:
    """A copy that is made on the current stream."""
    current.pending.append(lambda: np.copyto(target, source))
    return Array(target)


def asarray(x: Any) -> Array:
    if isinstance(x, Array):
        return x
    if isinstance(x, np.ndarray):
        return Array(x.copy())
    return Array(np.asarray(types.SimpleNamespace(__array_interface__=x.__cuda_array_interface__)))


def module() -> types.ModuleType:
    """To be entered in sys.modules as cupy."""
    cupy: Any = types.ModuleType("cupy")
    cupy.ndarray = Array
    cupy.asarray = asarray
    cupy.empty = lambda shape, dtype: Array(np.empty(shape, dtype))
    cupy.concatenate = lambda arrays: Array(np.concatenate([array.memory for array in arrays]))
    cupy.copyto = lambda target, source: later(source.memory, target.memory)
    cupy.cuda = types.SimpleNamespace(get_current_stream=lambda: current, Stream=Stream)
    return cupy
