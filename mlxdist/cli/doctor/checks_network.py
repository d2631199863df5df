"""What may be wrong with the networks between hosts, and how fast they are."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterator, Mapping

from mlxdist.cli.doctor import links
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, WARNING, Finding
from mlxdist.cli.doctor.links import Link
from mlxdist.cli.launch import networks, ssh
from mlxdist.cli.launch.networks import HostNetworks

_SPEED = "ethtool" if sys.platform == "linux" else "ifconfig"
SLOW = 0.25  # of the fastest link: a port that has negotiated 100 Mbit/s, not a noisy measurement


def reachable(env: Environment) -> Iterator[Finding]:
    """A rank cannot be started on a host."""
    for host, why in ssh.failures(ssh.ask(env.hosts, [env.mpirun] if env.mpirun else [])).items():
        yield dataclasses.replace(Finding.of(why), fact=f"{host}: {Finding.of(why).fact}")


def misleading(env: Environment) -> Iterator[Finding]:
    """There are networks that this MPI takes for a way to other hosts, and that are none."""
    if not env.library or (env.launcher and env.hosts) or networks.is_told(env.library, env.environ):
        return
    hosts = _networks(env.hosts) if env.hosts else [networks.here()]
    if warning := networks.warning(hosts, env.library):
        yield Finding(WARNING if env.hosts else NOTE, *warning)


def measured(env: Environment) -> Iterator[Finding]:
    """The links between the hosts, those that are missing, and those that hold up a collective."""
    hosts = {} if env.launcher else {each.host: each for each in _networks(env.hosts)}
    found = links.measure({host: [way.address for way in each.ways] for host, each in hosts.items()})
    every = sorted(found, key=lambda link: [*map(env.hosts.index, link.hosts)])
    there = {link: _description(link, hosts) for link in every if not link.why}
    fastest = max((link.bytes_per_s for link in there), default=0.0)
    for link in every:
        if link.why:
            fact = f"{link.hosts[0]} cannot open a TCP connection to {link.hosts[1]}: {link.why}"
            yield Finding(WARNING, fact, "open the firewall between them for all ports: MPI takes any")
        elif link.bytes_per_s < fastest * SLOW:
            fact = f"{there[link]}, much less than {_rate(fastest)} elsewhere"
            yield Finding(WARNING, fact, f"{_SPEED} INTERFACE on both hosts, which shows the speed of its port")
    if there:
        fact = "\n".join(("links between the hosts, measured with one TCP connection:", *there.values()))
        names = ",".join(env.hosts)
        yield Finding(NOTE, fact, f"mlxdist launch --hosts {names} -m mlxdist bench, which shows what ranks get of it")


@functools.cache
def _networks(hosts: tuple[str, ...]) -> list[HostNetworks]:
    answers = ssh.ask(hosts, command=networks.question(hosts)) if len(hosts) > 1 else {}
    return [networks.answer(host, answer.printed) for host, answer in answers.items() if not answer.failure]


def _description(link: Link, hosts: Mapping[str, HostNetworks]) -> str:
    ends = []
    for name, address in zip(link.hosts, link.addresses, strict=True):
        interface = next((each.name for each in hosts[name].interfaces if each.address == address), "")
        ends.append(f"{name} ({f'{interface} {address}'.lstrip()})")
    return f"{' to '.join(ends)}: round trip {link.round_trip_s * 1e6:.0f} us, {_rate(link.bytes_per_s)}"


def _rate(bytes_per_s: float) -> str:
    megabits = bytes_per_s * 8e-6
    return f"{megabits / 1000:.1f} Gbit/s" if megabits >= 1000 else f"{megabits:.3g} Mbit/s"


# Each names the interfaces that an MPI may use.
_INTERFACES = {name for rule in networks.RULES for name in rule.variables} | {"HYDRA_IFACE", "I_MPI_HYDRA_IFACE"}


def loopback(env: Environment) -> Iterator[Finding]:
    """MPI may use the loopback interface only, which reaches no other host."""
    for name in sorted(name for name in _INTERFACES if env.hosts and env.environ.get(name) in ("lo", "lo0")):
        fact = f"{name}={env.environ[name]} keeps MPI from reaching other hosts"
        yield Finding(WARNING, fact, f"unset {name}")
