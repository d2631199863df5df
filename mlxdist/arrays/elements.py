"""Element types and streams: what is refused, in the same words for every framework."""

from __future__ import annotations

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
