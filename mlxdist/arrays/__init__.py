"""The arrays of each framework: one small file each with the same few functions, and the table of them.

mlxdist imports no framework; it recognises those that the program has imported.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from mlxdist import _core
from mlxdist.arrays import cupy, jax, numpy, torch


class Framework(Protocol):
    """What each file provides. An ``array`` is what ``as_array``, ``template`` or ``writable`` returned."""

    def owns(self, x: object) -> bool:
        """Whether ``x`` is an array of this framework."""

    def as_array(self, call: str, x: Any) -> Any:
        """``x`` as an array that can be communicated, not copied; a TypeError or ValueError if it cannot be."""

    def template(self, call: str, dtype: Any) -> Any:
        """An array of ``dtype`` to receive into another like it; None if ``dtype`` is not this framework's."""

    def writable(self, call: str, out: Any) -> Any:
        """``out`` as an array that a result can be written to, or an error."""

    def memory(self, array: Any) -> tuple[int, int, bool]:
        """The addresses of its first byte and behind its last; whether it is in C order. Of x and out of one call."""

    def synchronize(self, call: str, array: Any, stream: Any) -> None:
        """Wait for the work on ``stream``; a TypeError if it is not a stream of this framework."""

    def as_buffer(self, array: Any) -> _core.Buffer:
        """The elements in C order where MPI can read them: in place, else one copy. What computes them has finished."""

    def empty_like(self, array: Any, shape: tuple[int, ...]) -> _core.Buffer:
        """New memory for a result of ``array``'s kind, dtype and device."""

    def result(self, array: Any, buffer: _core.Buffer) -> Any:
        """What ``empty_like`` returned, now filled, as an array of ``array``'s kind."""

    def copyto(self, target: Any, source: Any) -> None:
        """Copy the elements; each is an array of this framework or the owner of one of its Buffers."""

    def is_changeable(self, array: Any) -> bool:
        """Whether ``copyto`` can write to it."""

    def changed(self, array: Any) -> None:
        """Tell the framework that its memory was written to behind its back."""

    def is_on_device(self, array: Any) -> bool:
        """Whether the framework, then an ``OnDevice``, joins and divides such arrays, not the core in host memory."""


class OnDevice(Framework, Protocol):
    """What files of frameworks with devices provide besides."""

    def joined(self, arrays: Sequence[Any]) -> Any:
        """A writable copy of arrays of one dtype, flattened and concatenated."""

    def quotient(self, array: Any, n: int) -> Any:
        """What ``joined`` returned, of floats or complex numbers, divided by ``n``."""


# What none of them owns is converted to a NumPy array or refused. MLX's arrays are lazy: mlx.py, see dispatch.py.
FRAMEWORKS: tuple[Framework, ...] = (numpy, torch, jax, cupy)


def of(x: object) -> Framework:
    """The framework of an array."""
    for framework in FRAMEWORKS:
        if framework.owns(x):
            return framework
    return numpy


def to_receive(call: str, dtype: Any) -> tuple[Framework, Any]:
    """The framework of ``dtype``, and its template."""
    for framework in reversed(FRAMEWORKS):  # NumPy accepts types of others too
        template = framework.template(call, dtype)
        if template is not None:
            return framework, template
    raise TypeError(
        f"[{call}] dtype={dtype!r} is not a dtype of NumPy, MLX, PyTorch or JAX: pass one of {', '.join(_core.DTYPES)}"
    )
