"""Which networks of the hosts may mislead an MPI, and what tells it the right one.

Each MPI chooses among the interfaces of a host by itself. One that leads to no other host, as that of containers, which
has the same address everywhere, makes it hang or crash in the first call.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import socket
import sys
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from mlxdist.cli.launch import interfaces
from mlxdist.cli.launch.interfaces import Interface
from mlxdist.mpi.launchers import LibraryInfo

# Of containers, of virtual machines, and of tunnels, which reach other hosts, but slowly. The last row is macOS's:
# bridge100 and above connect virtual machines, while bridge0 connects Thunderbolt cables; awdl0 and llw0 are AirDrop's.
_VIRTUAL = re.compile(
    r"docker|podman|br-|veth|lxc|lxdbr|incusbr|cni|flannel|cali|cilium|kube|weave|vxlan|virbr|vmnet|vboxnet|"
    r"(tun|tunl|tap|wg)\d|tailscale|"
    r"bridge\d{3}|vmenet|feth|utun|ipsec\d|ppp\d|gif\d|stf\d|awdl|llw|anpi"
)


@dataclass(frozen=True)
class Rule:
    """Which interfaces an MPI takes for a way to other hosts, as tried on two hosts with such an interface each.

    Attributes:
        matches: the libraries that it is about.
        variables: name the interfaces to use; the first is the one that counts as a rule.
        several: how they name interfaces with different names: as "names", as "networks" or not at all.
        without_carrier: takes interfaces to which nothing is connected, such as docker0 while no container runs.
        bridges: takes bridges.
        on_one_host: is misled also by an interface that only one host has.
    """

    matches: Callable[[LibraryInfo], bool]
    variables: tuple[str, ...]
    several: str = ""
    without_carrier: bool = False
    bridges: bool = True
    on_one_host: bool = False


# UCX looks at UCX_NET_DEVICES only, libfabric at the variable of its provider, which is sockets in MPICH 5.0.2.
_MPICH = ("UCX_NET_DEVICES", "FI_SOCKETS_IFACE", "FI_TCP_IFACE")
# The first that matches counts.
RULES = (
    # 4.1.8 and 5.0.11. A name that a host does not have makes 5.0.11 crash.
    Rule(
        lambda library: library.is_open_mpi, ("OMPI_MCA_btl_tcp_if_include",), several="networks", without_carrier=True
    ),
    # 2021.18.1
    Rule(lambda library: library.vendor == "Intel MPI", ("FI_TCP_IFACE",), on_one_host=True),
    # 4.0.2 with UCX 1.13
    Rule(lambda library: library.version < (4, 2), _MPICH, several="names", without_carrier=True),
    # 5.0.2 with UCX 1.20. From UCX 1.16 on bridges are left out, and MPICH 4.2 was built with that. Libfabric takes
    # them, but the version string does not say which of the two is used. UCX is for Linux only.
    Rule(lambda library: True, _MPICH, several="names", bridges=False),
)


@dataclass(frozen=True)
class HostNetworks:
    """The interfaces of a host; ``ways`` are those by which it reaches the other hosts."""

    host: str
    interfaces: tuple[Interface, ...]
    ways: tuple[Interface, ...]


def question(hosts: Sequence[str]) -> str:
    """The shell command that prints, on one of ``hosts``, what ``answer`` reads."""
    return shlex.join([sys.executable, "-IS", interfaces.__file__, *hosts])


def answer(host: str, printed: str) -> HostNetworks:
    """The networks of ``host``, from the output of its ``question``; without any if it printed something else."""
    for line in printed.splitlines():
        if line.startswith(interfaces.MARK):
            with contextlib.suppress(ValueError, TypeError):  # another version is installed there
                found, towards = json.loads(line.removeprefix(interfaces.MARK))
                every = tuple(Interface(*fields) for fields in found)
                return HostNetworks(host, every, tuple(each for each in every if each.address in towards))
    return HostNetworks(host, (), ())


def here() -> HostNetworks:
    """The networks of this host; without other hosts, those that are not virtual count as ways."""
    every = tuple(interfaces.interfaces())
    return HostNetworks(socket.gethostname(), every, tuple(each for each in every if not _VIRTUAL.match(each.name)))


def misleading(hosts: Sequence[HostNetworks], library: LibraryInfo) -> dict[Interface, list[str]]:
    """The interfaces that ``library`` may take for a way to another host, each with the hosts that have it."""
    rule = rule_of(library)
    every = [each for each in hosts if each.ways]
    times = Counter(interface.address for each in every for interface in each.interfaces)
    found: dict[Interface, list[str]] = {}
    for each in every:
        for interface in each.interfaces:
            if (
                interface not in each.ways
                and (times[interface.address] > 1 or _VIRTUAL.match(interface.name))
                and (interface.has_carrier or rule.without_carrier)
                and (rule.bridges or not interface.is_bridge or sys.platform != "linux")
            ):
                found.setdefault(interface, []).append(each.host)
    concerned = {host for names in found.values() for host in names}
    return found if rule.on_one_host or len(concerned) > 1 or len(every) == 1 else {}


def rule_of(library: LibraryInfo) -> Rule:
    """The rule about ``library``."""
    return next(rule for rule in RULES if rule.matches(library))


def is_told(library: LibraryInfo, environ: Mapping[str, str], words: Collection[str] = ()) -> bool:
    """Whether the user tells the MPI which networks to use, by a variable or in ``words`` for mpirun."""
    include = rule_of(library).variables[0]
    names = (include, include.replace("include", "exclude"))
    return any(name in environ or name in words or name.removeprefix("OMPI_MCA_") in words for name in names)


def warning(hosts: Sequence[HostNetworks], library: LibraryInfo) -> tuple[str, str] | None:
    """A fact about networks that may mislead ``library``, and the remedy; None if there are none."""
    found = misleading(hosts, library)
    if not found:
        return None
    places = "; ".join(f"{each.name} ({each.address}) on {', '.join(names)}" for each, names in found.items())
    fact = f"{library.vendor} may try to reach other hosts through virtual networks: {places}"
    return fact, _remedy(rule_of(library), [way for each in hosts for way in each.ways], found)


def _remedy(rule: Rule, ways: Sequence[Interface], found: Collection[Interface]) -> str:
    names = [*dict.fromkeys(way.name for way in ways)]
    networks = [*dict.fromkeys(way.network for way in ways)]
    if len(names) > 1 and not rule.several:
        return "; ".join(f"ip link set {name} down" for name in dict.fromkeys(each.name for each in found))
    value = ",".join(networks if len(names) > 1 and rule.several == "networks" else names)
    return "export " + " ".join(f"{variable}={value}" for variable in rule.variables)
