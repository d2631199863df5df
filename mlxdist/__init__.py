"""Sum arrays across processes, on any MPI: ``mlx.core.distributed`` for MLX, NumPy, PyTorch, JAX and CuPy.

>>> import mlxdist as dist
>>> group = dist.init()
>>> total = dist.all_sum(gradient)
"""

# What NumPy says in a second interpreter: 2.4; 2.2, "CPU dispatcher tracer already initlized", a RuntimeError
_REFUSED_BY_NUMPY = ("once per process", "already init")


def _import_core() -> None:
    """Open the extension for mlxdist alone, whatever flags the interpreter opens others with (macOS: RTLD_GLOBAL)."""
    import os
    import sys

    # NumPy's extensions are opened as the program wants. And _core would remember an interpreter that NumPy then
    # refuses, and refuse all others.
    import numpy  # noqa: F401

    flags = sys.getdlopenflags()
    sys.setdlopenflags(flags & ~os.RTLD_GLOBAL | os.RTLD_LOCAL)
    try:
        import mlxdist._core  # noqa: F401
    finally:
        sys.setdlopenflags(flags)


try:
    _import_core()  # first: where it is missing, other imports would report a circular import
    from mlxdist.errors import Error, LoadError, MismatchError, MPIError, PeerError
    from mlxdist.errors import TimeoutError as TimeoutError
    from mlxdist.gradients import average_gradients
    from mlxdist.mlx.install import install
    from mlxdist.ops import (
        all_band,
        all_bor,
        all_gather,
        all_max,
        all_min,
        all_prod,
        all_sum,
        all_to_all,
        barrier,
        broadcast,
        empty,
        gather,
        recv,
        recv_like,
        reduce,
        scatter,
        send,
        sendrecv,
        sum_scatter,
    )
    from mlxdist.work import Work
    from mlxdist.world import Group, Info, finalize, group, info, init, is_available
except (ImportError, AttributeError, RuntimeError) as error:  # _core is missing, or was built from other sources
    _reason = (
        f"one interpreter of a process can import mlxdist ({error}): import it in the main one first; use threads "
        "or processes rather than subinterpreters"
        if any(words in str(error) for words in ("interpreter", *_REFUSED_BY_NUMPY))  # Cython's words and CPython's
        else f"the mlxdist installation in {__path__[0]} is incomplete ({error}): "
        "pip install --force-reinstall mlxdist, or make build there"
    )
    raise ImportError(_reason, name="mlxdist") from error  # the name, so that `python -m mlxdist` prints one line

__version__ = "0.1.0"

# Without TimeoutError: `from mlxdist import *` must not replace the built-in one.
__all__ = [
    "Error",
    "Group",
    "Info",
    "LoadError",
    "MPIError",
    "MismatchError",
    "PeerError",
    "Work",
    "all_band",
    "all_bor",
    "all_gather",
    "all_max",
    "all_min",
    "all_prod",
    "all_sum",
    "all_to_all",
    "average_gradients",
    "barrier",
    "broadcast",
    "empty",
    "finalize",
    "gather",
    "group",
    "info",
    "init",
    "install",
    "is_available",
    "recv",
    "recv_like",
    "reduce",
    "scatter",
    "send",
    "sendrecv",
    "sum_scatter",
]
