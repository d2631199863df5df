"""Element types and streams, as all frameworks name and refuse them."""

from __future__ import annotations

from typing import Any

from mlxdist import _core


def type_of(call: str, name: str) -> int:
    """The place of the dtype ``name`` in DTYPES, or a TypeError."""
    if name not in _core.DTYPES:
        raise refused(call, name)
    return _core.DTYPES.index(name)


def refused(call: str, dtype: object) -> TypeError:
    """The error of a dtype that has no numbers which could be added."""
    return TypeError(
        f"[{call}] x has dtype {dtype}, which cannot be communicated: give one of {', '.join(_core.DTYPES)}"
    )


def no_stream(call: str, kind: str, stream: Any) -> None:
    """The work of ``kind`` of arrays is done, or waited for by reading them."""
    if stream is not None:
        raise TypeError(f"[{call}] stream={stream!r}: {kind} have no streams, leave it out")


def finish(call: str, stream: Any) -> None:
    """Wait for a framework's stream."""
    if stream is None:
        return
    if not callable(getattr(stream, "synchronize", None)):
        raise TypeError(f"[{call}] stream={stream!r} is no stream: give one of the framework of x")
    stream.synchronize()
