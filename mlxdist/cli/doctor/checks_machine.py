"""What may be wrong with this machine and with the hosts."""

from __future__ import annotations

import dataclasses
import os
import re
import socket
from collections.abc import Iterator

from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, WARNING, Finding
from mlxdist.cli.launch import mpirun, ssh

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


_VIRTUAL = re.compile("docker|podman|virbr|veth|br-|cni|flannel|lxc|lxdbr|vmnet|vboxnet")
# Open MPI 5's mpirun does not accept oob_tcp_if_exclude (open-mpi/ompi#12467). The libfabric of the others cannot
# exclude interfaces, and MPICH may use UCX instead, which looks at its own variable only (5.0.2).
_EXCLUDE = {
    "Open MPI": "export OMPI_MCA_btl_tcp_if_exclude=lo,{virtual}",
    "Intel MPI": "export I_MPI_HYDRA_IFACE={real} FI_TCP_IFACE={real}",
    "": "export HYDRA_IFACE={real} UCX_NET_DEVICES={real} FI_TCP_IFACE={real}",
}


def interfaces(env: Environment) -> Iterator[Finding]:
    """There are networks of containers and virtual machines, through which no other host can be reached."""
    names = [name for _, name in socket.if_nameindex()]
    virtual = [name for name in names if _VIRTUAL.match(name)]
    if virtual and env.library:
        real = next((name for name in names if name != "lo" and name not in virtual), "eth0")
        remedy = _EXCLUDE.get("Open MPI" if env.library.is_open_mpi else env.library.vendor, _EXCLUDE[""])
        yield Finding(
            WARNING if env.hosts else NOTE,
            f"MPI may try to reach other hosts through virtual networks: {', '.join(virtual)}",
            remedy.format(virtual=",".join(virtual), real=real),
        )


# Each names the interfaces that an MPI may use.
_INTERFACES = ("OMPI_MCA_btl_tcp_if_include", "UCX_NET_DEVICES", "FI_TCP_IFACE", "HYDRA_IFACE", "I_MPI_HYDRA_IFACE")


def loopback(env: Environment) -> Iterator[Finding]:
    """MPI may use the loopback interface only, which reaches no other host."""
    for name in filter(lambda name: env.environ.get(name) == "lo", _INTERFACES if env.hosts else ()):
        yield Finding(WARNING, f"{name}=lo keeps MPI from reaching other hosts", f"unset {name}")


def reachable(env: Environment) -> Iterator[Finding]:
    """A rank cannot be started on a host."""
    for host, why in ssh.unusable(env.hosts, env.mpirun).items():
        yield dataclasses.replace(Finding.of(why), fact=f"{host}: {Finding.of(why).fact}")
