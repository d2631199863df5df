"""``install()``: ``mx.distributed`` runs on mlxdist, accepts its groups, and gets a ``sum_scatter`` that works."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from mlxdist import _core, ops, world
from mlxdist.mlx import backend


def _on_our_mpi(native: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(native)
    def init(strict: bool = False, backend: str = "any", **options: Any) -> Any:
        _core.recover_mlx()
        # MLX would try NCCL and its ring first if the environment configures them
        return native(strict, "mpi" if backend == "any" else backend, **options)

    return init


def _is_available(native: Callable[..., bool]) -> Callable[..., bool]:
    @functools.wraps(native)
    def is_available(*backend: str, **named: str) -> bool:
        return "mpi" in (*backend, *named.values()) or native(*backend, **named)  # a world of one has no libmpi

    return is_available


def _sum_scatter(x: Any, *, group: Any = None, stream: Any = None) -> Any:
    """This rank's part of the sum of ``x`` over all ranks: see mlxdist.sum_scatter."""
    import mlx.core as mx

    return ops.sum_scatter(x if isinstance(x, mx.array) else mx.array(x), group=group, stream=stream)


def install() -> None:
    """Make ``mx.distributed`` run on mlxdist in this process: start the world, and let MLX use it as its MPI.

    Call it before the program's first ``mx.distributed.init()`` or ``is_available()``: MLX opens an MPI only once.
    Afterwards ``mx.distributed`` accepts mlxdist's groups besides its own, as mlxdist accepts MLX's, and
    ``mx.distributed.sum_scatter`` works, with gradients. Calling it again does nothing.

    Raises:
        Error: MLX is not installed, is older than 0.29.4, or has already opened another MPI.
        LoadError: as for ``init``.

    Example:
        >>> mlxdist.install()
        >>> world = mx.distributed.init()
    """
    world.init()
    backend.attach()
    import mlx.core as mx

    if mx.distributed.sum_scatter is _sum_scatter:
        return
    for name, call in backend.calls.items():
        setattr(mx.distributed, name, call)
    mx.distributed.init = _on_our_mpi(mx.distributed.init)
    mx.distributed.is_available = _is_available(mx.distributed.is_available)
    mx.distributed.sum_scatter = _sum_scatter
