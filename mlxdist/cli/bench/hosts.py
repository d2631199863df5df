"""Which ranks are on which host, and the least that the hosts have to exchange for a case."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from mlxdist.cli.bench.cases import Case
from mlxdist.cli.objects import all_gather_object
from mlxdist.mpi import processes

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
BOOT_SESSION = ("/usr/sbin/sysctl", "-n", "kern.bootsessionuuid")  # macOS's


@dataclass(frozen=True)
class Hosts:
    """The hosts in the order of their lowest rank.

    Attributes:
        names: what they call themselves.
        host_of: for each rank, the number of its host.
    """

    names: tuple[str, ...]
    host_of: tuple[int, ...]

    @property
    def ranks(self) -> list[int]:
        """The number of ranks on each host."""
        return [self.host_of.count(host) for host in range(len(self.names))]

    @property
    def leaders(self) -> list[int]:
        """The lowest rank of each host."""
        return [self.host_of.index(host) for host in range(len(self.names))]

    def __str__(self) -> str:
        """Such as: 2 hosts, 3 + 1."""
        ranks = self.ranks
        each = f"{ranks[0]} on each" if len(set(ranks)) == 1 else " + ".join(map(str, ranks))
        return f"{len(ranks)} hosts, {each}"


@cache
def find() -> Hosts:
    """The hosts of all ranks, for which every rank must call it. Hosts of the same name differ by their boot."""
    return grouped(all_gather_object([socket.gethostname(), boot()]))


def boot() -> str:
    """What changes with each boot of this host, and is another on each host; empty where the system does not say."""
    with contextlib.suppress(OSError):
        return BOOT_ID.read_text().strip()
    return processes.output_of(BOOT_SESSION).strip()


def grouped(identities: Sequence[Sequence[str]]) -> Hosts:
    """The hosts, from the name and the boot of each rank's host."""
    each = [(name, boot_of) for name, boot_of in identities]
    distinct = list(dict.fromkeys(each))
    return Hosts(tuple(name for name, _ in distinct), tuple(map(distinct.index, each)))


@dataclass(frozen=True)
class Traffic:
    """Bytes that a host sends to and receives from other hosts."""

    sent: float
    received: float


# From the bytes of each rank's input, the ranks of the host, all ranks, the number of hosts, and whether the root is on
# this one. In a broadcast the host of the root need not receive, and one of the others need not send; in a reduce the
# other way about.
_LEAST: dict[str, Callable[[int, int, int, int, bool], tuple[float, float]]] = {
    "all_sum": lambda nbytes, here, size, hosts, root: (2 * (hosts - 1) / hosts * nbytes,) * 2,
    "all_gather": lambda nbytes, here, size, hosts, root: ((hosts - 1) * here * nbytes, (size - here) * nbytes),
    "sum_scatter": lambda nbytes, here, size, hosts, root: (
        (size - here) / size * nbytes,
        (hosts - 1) * here / size * nbytes,
    ),
    "broadcast": lambda nbytes, here, size, hosts, root: (nbytes, nbytes),
    "reduce": lambda nbytes, here, size, hosts, root: (nbytes, nbytes),
    "all_to_all": lambda nbytes, here, size, hosts, root: (here * (size - here) / size * nbytes,) * 2,
    "gather": lambda nbytes, here, size, hosts, root: (0, (size - here) * nbytes) if root else (here * nbytes, 0),
    "scatter": lambda nbytes, here, size, hosts, root: (
        ((size - here) / size * nbytes, 0) if root else (0, here / size * nbytes)
    ),
}


def least(case: Case, hosts: Hosts) -> list[Traffic]:
    """The least that each host has to send and receive, if a host adds up what its own ranks contribute first."""
    count = _LEAST[case.operation]
    root = hosts.host_of[0]
    return [
        Traffic(*count(case.nbytes, here, case.size, len(hosts.names), host == root))
        for host, here in enumerate(hosts.ranks)
    ]
