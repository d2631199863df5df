"""Element types and streams: what is refused, in the same words for every framework."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from mlxdist import _core


def check(call: str, name: str) -> None:
    """Refuse a dtype that is not in DTYPES."""
    if name not in _core.DTYPES:
        raise refused(call, name)


def refused(call: str, dtype: object) -> TypeError:
    """The error for a dtype whose elements cannot be added."""
    return TypeError(
        f"[{call}] x has dtype {dtype}, which cannot be communicated: pass one of {', '.join(_core.DTYPES)}"
    )


def bounds(first: int, shape: Sequence[int], strides: Sequence[int], itemsize: int) -> tuple[int, int, bool]:
    """Where the memory of an array begins and ends, and whether it is in C order; strides in bytes."""
    if 0 in shape:
        return first, first, True
    reaches = [(length - 1) * stride for length, stride in zip(shape, strides, strict=True)]
    begin, end = first + sum(min(reach, 0) for reach in reaches), first + sum(max(reach, 0) for reach in reaches)
    in_order = all(
        stride == math.prod(shape[axis + 1 :]) * itemsize
        for axis, (length, stride) in enumerate(zip(shape, strides, strict=True))
        if length > 1
    )
    return begin, end + itemsize, in_order


def no_stream(call: str, kind: str, stream: Any) -> None:
    """Refuse a stream for arrays that have none."""
    if stream is not None:
        raise TypeError(f"[{call}] stream={stream!r} was passed, but {kind} have no streams: leave stream out")


def finish(call: str, stream: Any) -> None:
    """Wait for a stream, if one was passed."""
    if stream is None:
        return
    if not callable(getattr(stream, "synchronize", None)):
        raise TypeError(f"[{call}] stream={stream!r} is not a stream: pass one of x's framework")
    stream.synchronize()
