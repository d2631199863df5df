"""MLX's own lazy operations over our groups: MLX opens ``_core`` as its libmpi.

The order in which things are opened was found by crashing: MLX opens its libmpi with RTLD_GLOBAL, which would put
our ``MPI_*`` names in front of the real ones for Open MPI's plugins and for a later mpi4py. So before MLX opens ours,
MPI is initialized and the real library has been made global.

Nothing of MLX is imported before an ``mx.array`` or ``install()`` comes.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import sys
import weakref
from typing import Any

from mlxdist import _core, config, errors

OLDEST = (0, 29, 4)  # the first release that reads MLX_MPI_LIBNAME

_groups: weakref.WeakKeyDictionary[_core.Group, dict[tuple[str, int], Any]] = weakref.WeakKeyDictionary()
_world: Any = None
_streams: list[Any] = []  # on which we were asked to communicate


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


def group_of(group: _core.Group, kind: str = "reduction", root: int = 0) -> Any:
    """MLX's group of the same ranks; made once. See mlx_libmpi.h for the kinds."""
    world = install()
    if (group is _core.world() and (kind, root) == ("reduction", 0)) or world.size() == 1:
        return world
    known = _groups.setdefault(group, {})
    if (kind, root) not in known:
        _core.override_next_mlx_split(group, _core.MLX_KINDS[kind], root)
        known[kind, root] = world.split(0)
    return known[kind, root]


def note(stream: Any) -> None:
    """Remember that something is to be communicated on ``stream``, for ``finish()``."""
    mx = sys.modules["mlx.core"]  # whoever calls has it; an import statement takes longer than all else here
    used = stream if stream is not None and isinstance(stream, mx.Stream) else mx.default_stream(mx.cpu)
    if used not in _streams:
        _streams.append(used)
