"""MLX's "mpi" backend over the groups of mlxdist: MLX opens a shim, ``core/shims/mlx_libmpi.cpp``, as its libmpi.

The load order was found by crashing: MLX opens its libmpi with RTLD_GLOBAL, which would put the shim's ``MPI_*`` names
before the real ones for Open MPI's plugins and for a later mpi4py. So MPI is initialized and the real library made
global before MLX opens the shim. In a world of one there may be none yet: there MLX needs no MPI, and opens no shim.

MLX is not imported before an ``mx.array`` is passed or ``install()`` is called.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import threading
from collections.abc import Callable
from typing import Any

from mlxdist import _core, config, errors, shims

OLDEST = (0, 29, 4)  # the first release that reads MLX_MPI_LIBNAME
SHIM = shims.path_of("mlx_libmpi")

CALLS = ("all_sum", "all_max", "all_min", "all_gather", "send", "recv", "recv_like")  # MLX's own
calls: dict[str, Callable[..., Any]] = {}  # the same for groups of either kind
_world: Any = None
_native_split: Any = None
_lock = threading.RLock()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it in attach()


os.register_at_fork(after_in_child=_after_fork)


def owns_group(group: object) -> bool:
    """Whether ``group`` is an mx.distributed.Group."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(group, mx.distributed.Group)


@functools.lru_cache(maxsize=64)  # each query makes a group, and MLX's cannot be weakly referenced
def behind(group: Any) -> _core.Group | None:
    """The mlxdist group behind one of MLX's; None if that one does not run on mlxdist."""
    if attach().size() == 1:
        return _core.world() if group.size() == 1 else None
    return _core.behind_mlx(functools.partial(_native_split, group))


def attach() -> Any:
    """Make MLX's "mpi" backend run on mlxdist's world, already started; returns MLX's group for it."""
    global _world
    if _world is None:
        with _lock:
            if _world is None:
                _world = _attached()
    return _world


def _attached() -> Any:
    global _native_split
    try:
        import mlx.core as mx
    except ImportError:
        raise errors.Error(
            "[install] MLX is not installed: pip install mlx (on Linux: mlx[cpu] or mlx[cuda])"
        ) from None
    version = tuple(map(int, re.findall(r"\d+", mx.__version__)[:3]))
    if version < OLDEST:
        raise errors.Error(f"[install] MLX {mx.__version__} cannot be told which libmpi to open: pip install -U mlx")
    shims.check("install", SHIM)
    started = _core.world()
    assert started is not None
    is_alone = started.size() == 1
    _core.make_global()
    earlier = os.environ.get(config.MLX_LIBMPI.name)
    os.environ[config.MLX_LIBMPI.name] = "none" if is_alone else SHIM
    # Makes MLX open a libmpi, unless it has already; MLX 0.29.4 cannot be asked about one backend.
    has_libmpi = mx.distributed.is_available(*(() if version < (0, 30) else ("mpi",)))
    if earlier is None:
        del os.environ[config.MLX_LIBMPI.name]  # a child process with MLX alone would take us for an MPI
    else:
        os.environ[config.MLX_LIBMPI.name] = earlier
    if (version >= (0, 30) and has_libmpi) if is_alone else not _core.connect_mlx(SHIM):
        raise errors.Error(
            "[install] MLX has opened another MPI already, and does so only once: call mlxdist.install() before "
            "mx.distributed.init() and mx.distributed.is_available()"
        )
    world = mx.distributed.init(backend="mpi")
    theirs, ours = ((group.rank(), group.size()) for group in (world, started))
    if theirs != ours:
        raise errors.Error(
            f"[install] this is rank {theirs[0]} of {theirs[1]} to MLX, {ours[0]} of {ours[1]} to mlxdist: "
            "call mlxdist.install() before mx.distributed.init()"
        )
    _core.attach_mlx(mx, world, group_of, finish)
    for name in CALLS:
        native = getattr(mx.distributed, name)
        calls[name] = functools.wraps(native)(_core.over_mlx(name, native))
    _native_split = mx.distributed.Group.split
    mx.distributed.Group.split = functools.wraps(_native_split)(_split)
    return world


def _split(group: Any, color: int, key: int = -1) -> Any:
    """MLX's own holds the GIL while it waits for the other ranks, and refuses to split a world of one (MLX 0.32.4)."""
    ours: Any = behind(group)
    if ours is None:
        return _native_split(group, color, key)
    return group_of(ours.split(color, key))


def finish() -> None:
    """Wait for what MLX is evaluating: so that it communicates before MPI ends, or fails behind what has failed."""
    if _world is None:
        return
    import mlx.core as mx

    for stream in _core.mlx_streams():
        with contextlib.suppress(RuntimeError):  # its failure has been reported by the evaluation
            mx.eval(mx.zeros(1, stream=stream))  # mx.synchronize holds the GIL (MLX 0.31.2)


def group_of(group: _core.Group, kind: str = "reduction", root: int = 0, wire: int = 0, digest: int = 0) -> Any:
    """MLX's group of the same ranks, made once; kinds as in mlx_libmpi.h."""
    world = attach()
    key = (kind, root, wire, digest)
    if (group is _core.world() and key == _core.REDUCTION) or world.size() == 1:
        return world
    known = _core.mlx_groups_of(group)
    if key not in known:
        _core.override_next_mlx_split(group, _core.MLX_KINDS[kind], root, wire, digest)
        known.setdefault(key, _native_split(world, 0))  # another thread may have made it too
    return known[key]
