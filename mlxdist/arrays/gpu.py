"""Whether libmpi reads GPU memory; if not, arrays are staged through the host."""

from __future__ import annotations

import functools
import sys

from mlxdist import _core, config


@functools.cache
def is_read_by_mpi(kind: str) -> bool:
    """Decided when the first array on a device of this ``kind`` is communicated."""
    wanted = {"0": False, "1": True}.get(config.CUDA_AWARE.get())
    aware = kind == "cuda" and (_core.cuda_aware() if wanted is None else wanted)
    if not aware:
        say_staged(
            f"arrays on {kind}", f"libmpi is not known to read GPU memory; if it does, set {config.CUDA_AWARE.name}=1"
        )
    return aware


@functools.cache
def say_staged(what: str, why: str) -> None:
    """Say once, on rank 0, that a slow way is taken."""
    world = _core.world()
    if world is not None and world.rank() == 0:
        print(f"mlxdist: {what} are copied through host memory: {why}", file=sys.stderr)
