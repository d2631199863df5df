"""Communicators of mpi4py, which a program passes: mpi4py itself is never imported here."""

from __future__ import annotations

import sys
from typing import Any

from mlxdist import errors


def is_one(comm: object) -> bool:
    """Whether this is a communicator of mpi4py."""
    mpi = sys.modules.get("mpi4py.MPI")
    return mpi is not None and isinstance(comm, mpi.Comm)


def check(comm: Any) -> None:
    """Refuse one that cannot be used.

    Raises:
        ValueError: MPI has not begun or has ended, or the communicator was freed, is null, or connects two groups.
    """
    mpi = sys.modules["mpi4py.MPI"]
    if not mpi.Is_initialized() or mpi.Is_finalized():
        when = "has been finalized" if mpi.Is_initialized() else "has not been initialized"
        raise ValueError(f"[group] MPI {when}: pass a communicator between its start and its end")
    if comm == mpi.COMM_NULL:
        raise ValueError("[group] the communicator is null or was freed: pass one that has this process")
    if comm.Is_inter():
        raise ValueError("[group] an intercommunicator has two groups: pass what its Merge() returns")


def handle_of(comm: Any, version: str) -> int:
    """The handle of a communicator that belongs to the libmpi which describes itself as ``version``.

    Raises:
        LoadError: mpi4py uses another.
    """
    mpi = sys.modules["mpi4py.MPI"]
    its = mpi.Get_library_version().splitlines()[0].rstrip("\0 ")
    if its != version.rstrip():
        raise errors.LoadError(
            f"[group] mpi4py uses another MPI ({its}) than mlxdist ({version}): import mpi4py first, or call init() "
            "before mpi4py is imported"
        )
    handle: int = mpi._handleof(comm)
    return handle
