"""What may be wrong with this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, WARNING, Finding
from mlxdist.cli.launch import mpirun

ENOUGH = 64 << 20  # bytes: mlxdist uses up to about 32 MiB per group, Open MPI 5.0 16 MiB per rank
_ROOM = "mount -o remount,rw,size=1g /dev/shm; for a container: docker run --shm-size=1g"


def shared_memory(env: Environment) -> Iterator[Finding]:
    """With 64 KiB MPICH 5.0.2 and Intel MPI 2021.18 died of a bus error; the others and mlxdist were slow."""
    if env.context.platform != "linux":
        return
    try:
        status = os.statvfs("/dev/shm")
    except OSError as error:
        yield Finding(WARNING, f"/dev/shm cannot be used: {error.strerror}", _ROOM)
        return
    free = status.f_bavail * status.f_frsize
    if status.f_flag & os.ST_RDONLY or not os.access("/dev/shm", os.W_OK):
        yield Finding(WARNING, "/dev/shm cannot be written to, so the ranks of a host cannot share memory", _ROOM)
    elif free < ENOUGH:
        fact = f"/dev/shm has {free >> 10} KiB free: below {ENOUGH >> 20} MiB ranks are slow, or crash with a bus error"
        yield Finding(WARNING, fact, _ROOM)


_ROOT = ("OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM")


def root(env: Environment) -> Iterator[Finding]:
    """Open MPI's mpirun refuses to run as root."""
    missing = [name for name in _ROOT if env.environ.get(name) != "1"]
    if env.library and env.library.is_open_mpi and not env.launcher and os.geteuid() == 0 and missing:
        fact = "Open MPI's mpirun refuses to run as root, unless mlxdist launch starts it"
        yield Finding(NOTE, fact, "export " + " ".join(f"{name}=1" for name in missing))


def slots(env: Environment) -> Iterator[Finding]:
    """More ranks than cores."""
    if (cores := mpirun.cores()) < env.ranks and not env.launcher and not env.hosts:
        fact = (
            f"{env.ranks} ranks on {cores} core{'s' * (cores > 1)}: Open MPI's mpirun refuses, mlxdist launch does not"
        )
        yield Finding(NOTE, fact, "mpirun --oversubscribe --bind-to none")
