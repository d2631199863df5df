"""MLX's own lazy operations over our groups: MLX opens ``_core`` as its libmpi.

The order in which things are opened was found by crashing: MLX opens its libmpi with RTLD_GLOBAL, which would put
our ``MPI_*`` names in front of the real ones for Open MPI's plugins and for a later mpi4py. So before MLX opens ours,
MPI is initialized and the real library has been made global.

Nothing of MLX is imported before an ``mx.array`` or ``install()`` comes.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import os
import re
import sys
import weakref
from collections.abc import Sequence
from typing import Any

from mlxdist import _core, config, errors

OLDEST = (0, 29, 4)  # the first release that reads MLX_MPI_LIBNAME
LARGEST = 2**32 - 1  # MLX passes sizes on as 32-bit numbers

_groups: weakref.WeakKeyDictionary[_core.Group, dict[tuple[str, int], Any]] = weakref.WeakKeyDictionary()
_world: Any = None
_streams: list[Any] = []  # on which we were asked to communicate


def owns(x: object) -> bool:
    """Whether ``x`` is an mx.array; does not import MLX."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(x, mx.array)


def owns_dtype(dtype: object) -> bool:
    """Whether ``dtype`` is one of MLX's."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(dtype, mx.Dtype)


def owns_group(group: object) -> bool:
    """Whether ``group`` is an mx.distributed.Group."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(group, mx.distributed.Group)


@functools.lru_cache(maxsize=64)  # to ask makes a group, and one of MLX's can be referred to only strongly
def behind(group: Any) -> _core.Group | None:
    """Our group of the same ranks, behind one of MLX's; None if that does not run on mlxdist."""
    return _core.world() if install().size() == group.size() == 1 else _core.behind_mlx(group.split)


def install() -> Any:
    """Make MLX's "mpi" backend run on mlxdist's world, which has been started; returns MLX's group of it."""
    global _world
    if _world is not None:
        return _world
    try:
        import mlx.core as mx
    except ImportError:
        raise errors.Error(
            "[install] MLX is not installed: pip install mlx (on Linux: mlx[cpu] or mlx[cuda])"
        ) from None
    version = tuple(map(int, re.findall(r"\d+", mx.__version__)[:3]))
    if version < OLDEST:
        raise errors.Error(f"[install] MLX {mx.__version__} cannot be told which libmpi to open: pip install -U mlx")
    _core.make_global()
    earlier = os.environ.get(config.MLX_LIBMPI.name)
    os.environ[config.MLX_LIBMPI.name] = _core.__file__
    # Opens a libmpi, if MLX has not yet, and leaves it at that; MLX 0.29.4 cannot be asked for one backend.
    mx.distributed.is_available(*(() if version < (0, 30) else ("mpi",)))
    if earlier is None:
        del os.environ[config.MLX_LIBMPI.name]  # a child with MLX alone would take us for an MPI
    else:
        os.environ[config.MLX_LIBMPI.name] = earlier
    if not _core.mlx_opened_us():
        raise errors.Error(
            "[install] MLX has opened another MPI already, and does so only once: call mlxdist.install() before "
            "mx.distributed.init() and mx.distributed.is_available()"
        )
    world = mx.distributed.init(backend="mpi")
    started = _core.world()
    assert started is not None
    theirs, ours = ((group.rank(), group.size()) for group in (world, started))
    if theirs != ours:
        raise errors.Error(
            f"[install] this is rank {theirs[0]} of {theirs[1]} to MLX, {ours[0]} of {ours[1]} to mlxdist: "
            "call mlxdist.install() before mx.distributed.init()"
        )
    _world = world
    return _world


def finish() -> None:
    """What MLX has begun to evaluate communicates before MPI ends, or ranks would end at different calls."""
    if _world is None:
        return
    import mlx.core as mx

    for stream in (mx.default_stream(mx.cpu), *_streams):
        with contextlib.suppress(RuntimeError):  # what has failed there has been said to whoever evaluated it
            mx.synchronize(stream)


def group_of(group: _core.Group, meaning: str = "reduction", root: int = 0) -> Any:
    """MLX's group of the same ranks; made once. See mlx_libmpi.h for what it means."""
    world = install()
    if (group is _core.world() and (meaning, root) == ("reduction", 0)) or world.size() == 1:
        return world
    known = _groups.setdefault(group, {})
    if (meaning, root) not in known:
        _core.override_next_mlx_split(group, _core.MLX_KINDS[meaning], root)
        known[meaning, root] = world.split(0)
    return known[meaning, root]


def _check(call: str, count: int, stream: Any, out: object = None) -> None:
    if out is not None:
        raise TypeError(f"[{call}] out= of an mx.array: MLX's arrays cannot be written to, use the result")
    if count > LARGEST:
        raise ValueError(f"[{call}] the array has {count} elements, MLX passes on at most {LARGEST}: split it")
    note(stream)


def note(stream: Any) -> None:
    """Remember that something is to be communicated on ``stream``, for ``finish()``."""
    mx = sys.modules["mlx.core"]  # whoever calls has it; an import statement takes longer than all else here
    used = stream if stream is not None and isinstance(stream, mx.Stream) else mx.default_stream(mx.cpu)
    if used not in _streams:
        _streams.append(used)


def collective(call: str, x: Any, group: _core.Group, stream: Any, out: object) -> Any:
    """MLX's ``call``: all_sum, all_max, all_min or all_gather."""
    import mlx.core as mx

    _check(call, x.size, stream, out)
    return getattr(mx.distributed, call)(x, group=group_of(group), stream=stream)


def send(x: Any, dst: int, group: _core.Group, stream: Any) -> Any:
    """MLX's send: happens when the result is evaluated."""
    import mlx.core as mx

    _check("send", x.size, stream)
    return mx.distributed.send(x, dst, group=group_of(group), stream=stream)


def recv(shape: tuple[int, ...], dtype: Any, src: int, group: _core.Group, stream: Any) -> Any:
    """MLX's recv."""
    import mlx.core as mx

    _check("recv", math.prod(shape), stream)
    return mx.distributed.recv(shape, dtype, src, group=group_of(group), stream=stream)


def recv_like(x: Any, src: int, group: _core.Group, stream: Any, out: object) -> Any:
    """MLX's recv_like."""
    import mlx.core as mx

    _check("recv_like", x.size, stream, out)
    return mx.distributed.recv_like(x, src, group=group_of(group), stream=stream)


def average(xs: Sequence[Any], group: _core.Group, stream: Any, digest: int) -> list[Any]:
    """The means of several arrays of one dtype over all ranks, by one sum; ranks whose digests differ raise."""
    import mlx.core as mx

    flat = xs[0] if len(xs) == 1 else mx.concatenate([x.reshape(-1) for x in xs])
    _check("average_gradients", flat.size, stream)
    total = mx.distributed.all_sum(flat, group=group_of(group, root=digest), stream=stream)
    mean = total / group.size()
    if len(xs) == 1:
        return [mean]
    *ends, _ = itertools.accumulate(x.size for x in xs)
    return [part.reshape(x.shape) for part, x in zip(mx.split(mean, ends), xs, strict=True)]


def sum_scatter(x: Any, group: _core.Group, stream: Any, out: object) -> Any:
    """This rank's part of the sum; its cotangent is gathered from all ranks."""
    import mlx.core as mx

    _check("sum_scatter", x.size, stream, out)
    length = x.shape[0] // group.size()
    start = group.rank() * length
    meant = group_of(group, "sum_scatter")

    @mx.custom_function
    def scattered(x: Any) -> Any:
        return mx.distributed.all_sum(x, group=meant, stream=stream)[start : start + length]

    @scattered.vjp
    def gathered(primals: Any, cotangent: Any, output: Any) -> Any:
        return mx.distributed.all_gather(cotangent, group=group_of(group), stream=stream)

    @scattered.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:  # the batch goes last: a rank's part is a stretch of memory
        return sum_scatter(mx.moveaxis(x, axis, -1), group, stream, None), x.ndim - 1

    return scattered(x)


def broadcast(x: Any, src: int, group: _core.Group, stream: Any, out: object) -> Any:
    """Rank ``src``'s x; the cotangents of all ranks are summed on ``src``."""
    import mlx.core as mx

    _check("broadcast", x.size, stream, out)
    meant = group_of(group, "broadcast", src)

    @mx.custom_function
    def spread(x: Any) -> Any:
        return mx.distributed.all_sum(x, group=meant, stream=stream)

    @spread.vjp
    def collected(primals: Any, cotangent: Any, output: Any) -> Any:
        total = mx.distributed.all_sum(cotangent, group=group_of(group), stream=stream)
        return mx.where(group.rank() == src, total, 0)  # depends on total everywhere, so that every rank takes part

    @spread.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:  # without a rule of its own MLX would forget the vjp
        return broadcast(x, src, group, stream, None), axis

    return spread(x)
