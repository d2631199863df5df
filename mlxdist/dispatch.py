"""The general path of an operation: any array or number becomes a Buffer, and goes through ``_core.prepare``.

Everything that can be wrong with a call is found before any communication, so that no rank waits for half a call.
"""

from __future__ import annotations

import math
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from mlxdist import _core, arrays, work, world
from mlxdist.arrays import jax, mlx
from mlxdist.mlx import backend


def group_of(call: str, group: object) -> _core.Group:
    """The group that is meant: the world by default, ours behind one of MLX's."""
    if group is None:
        group = _core.world() or world.init()
    if not isinstance(group, _core.Group) and backend.owns_group(group):
        group = backend.behind(group)
    if not isinstance(group, _core.Group):
        raise TypeError(f"[{call}] group={group!r} is not an mlxdist group: pass what init() or split() returned")
    _core.check_open(call)
    return group


def carry_out(
    ready: _core.Call, source: _core.Buffer, target: _core.Buffer, finish: Callable[[], Any], wait: bool
) -> Any:
    """Communicate, and return what ``finish`` makes of it; wait=False: a Work that does."""
    if not wait:
        return work.Work([ready.start(source, target)], finish)
    ready.run(source, target)
    return finish()


def given(result: Any, wait: bool) -> Any:
    """A result without communication."""
    return result if wait else work.Work([], lambda: result)


LAZY = {
    "MLX": "MLX is lazy already: leave out wait=False, and pass the result to mx.async_eval()",
    "JAX": "JAX runs programs in the background already: leave out wait=False inside jit and grad",
}


def refuse_lazy(call: str, wait: bool, framework: str = "MLX") -> None:
    """What is computed in the background anyway."""
    if not wait:
        raise TypeError(f"[{call}] {LAZY[framework]}")


def run(
    call: str,
    x: Any,
    peer: Any = None,
    *,
    group: Any,
    stream: Any,
    out: Any = None,
    wait: bool = True,
    op: str | None = None,
) -> Any:
    """The operation ``call`` of the table on ``x``; every operation that takes an array."""
    group = group_of(call, group)
    if mlx.owns(x):
        refuse_lazy(call, wait)
        mlx.check(call, x.size, out)
        return mlx.run(call, x, _core.prepare(call, group, peer, x, op=op).peer, group, stream, op)
    if jax.is_traced(x):
        refuse_lazy(call, wait, "JAX")
        return traced().run(call, x, peer, group, stream, out, op)
    framework, array, into, ready = prepared(call, x, peer, group, stream, out, op)
    if not ready.has_result:
        sent = framework.as_buffer(array)
        return carry_out(ready, sent, sent, lambda: x, wait)
    if group.size() > 1:
        return _result(call, framework, array, ready, group, out, into, wait)
    if into is not None:
        framework.copyto(into, array)
        return given(out, wait)
    if tuple(array.shape) == ready.shape:
        return given(array, wait)
    gathered = framework.empty_like(array, ready.shape)  # of a number: one dimension more
    framework.copyto(gathered.owner, array)
    return given(framework.result(array, gathered), wait)


def traced() -> Any:
    """The operations on what JAX traces; imported when it first does."""
    from mlxdist.jax import primitives

    return primitives


def prepared(
    call: str, x: Any, peer: Any, group: _core.Group, stream: Any, out: Any, op: str | None = None
) -> tuple[arrays.Framework, Any, Any, _core.Call]:
    """The framework of ``x``, x and ``out`` as its arrays, and the call, all of which has been checked."""
    framework = arrays.of(x)
    array = framework.as_array(call, x)
    framework.synchronize(call, array, stream)
    into = None if out is None else _writable(framework, call, array, x, out)
    memory = (None, None) if into is None else (framework.memory(array), framework.memory(into))
    return framework, array, into, _core.prepare(call, group, peer, array, into, memory=memory, op=op)


def _writable(framework: arrays.Framework, call: str, array: Any, x: Any, out: Any) -> Any:
    """``out`` as an array of the framework and device of ``x`` that the result can be written to."""
    if mlx.owns(out) or arrays.of(out) is not framework:
        raise TypeError(f"[{call}] out is {_kind(out)}, x is {_kind(x)}: both must be of the same framework")
    into = framework.writable(call, out)
    device, wanted = (getattr(either, "device", None) for either in (into, array))  # NumPy 1 has none
    if device != wanted:
        raise TypeError(f"[{call}] out is on {device}, x on {wanted}: both must be on the same device")
    return into


def _kind(x: object) -> str:
    """Its class and where that is from: CuPy's arrays and NumPy's are ndarrays both."""
    return f"{type(x).__module__.partition('.')[0]}.{type(x).__name__}"


def _result(
    call: str,
    framework: arrays.Framework,
    array: Any,
    ready: _core.Call,
    group: _core.Group,
    out: Any,
    into: Any,
    wait: bool,
) -> Any:
    """Communicate into ``into``, by way of a copy where MPI cannot have its memory, or into a new array."""
    target = framework.empty_like(array, ready.shape) if into is None else framework.as_buffer(into)
    source = target
    if call == "broadcast":  # travels in its result
        if group.rank() == ready.peer:
            framework.copyto(target.owner, array)
    elif call != "recv_like" and (call != "scatter" or group.rank() == ready.peer):
        source = framework.as_buffer(array)
    if call in ("sum_scatter", "all_to_all") and ready.in_place and source.on_device:  # see group_run
        target = framework.empty_like(array, ready.shape)

    def finish() -> Any:
        if into is None:
            return framework.result(array, target)
        if target.owner is not into:
            framework.copyto(into, target.owner)
        return out

    return carry_out(ready, source, target, finish, wait)


def barrier(group: Any, wait: bool) -> Any:
    """Wait for every rank of the group."""
    group = group_of("barrier", group)
    if wait:
        return _core.barrier(group=group)
    nothing = _core.buffer_of(np.empty(0, np.bool_))
    ready = _core.prepare("barrier", group, None, nothing.owner)
    return carry_out(ready, nothing, nothing, lambda: None, wait) if group.size() > 1 else given(None, wait)


class Wanted(NamedTuple):
    """What is known of an array that has not arrived yet."""

    dtype: Any
    shape: tuple[int, ...]


def _too_large(shape: object) -> ValueError:
    return ValueError(f"[recv] shape={shape} is larger than memory can be: pass the shape that was sent")


def receive(shape: Any, dtype: Any, src: Any, *, group: Any, stream: Any, wait: bool = True) -> Any:
    """An array that rank ``src`` sends, of the framework that ``dtype`` belongs to."""
    group = group_of("recv", group)
    lengths = shape_of("recv", shape)
    if math.prod(lengths) > sys.maxsize:
        raise _too_large(shape)
    if mlx.owns_dtype(dtype):
        refuse_lazy("recv", wait)
        ready = _core.prepare("recv", group, src, Wanted(dtype, lengths))
        return mlx.receive(lengths, dtype, ready.peer, group, stream)
    framework, template = arrays.to_receive("recv", dtype)
    framework.synchronize("recv", template, stream)
    ready = _core.prepare("recv", group, src, Wanted(template.dtype, lengths))
    try:
        filled = framework.empty_like(template, lengths)
    except (OverflowError, RuntimeError, TypeError, ValueError):  # what NumPy and torch raise
        raise _too_large(shape) from None
    return carry_out(ready, filled, filled, lambda: framework.result(template, filled), wait)


def shape_of(call: str, shape: Any) -> tuple[int, ...]:
    """A shape that was passed as an int or a sequence of ints."""
    try:
        lengths = tuple(map(operator.index, shape if isinstance(shape, Sequence) else (shape,)))
    except TypeError:
        raise TypeError(f"[{call}] shape={shape!r} is not a shape: pass an int or a sequence of ints") from None
    if any(length < 0 for length in lengths):
        raise ValueError(f"[{call}] shape={lengths} has a negative length: pass lengths of 0 or more")
    return lengths
