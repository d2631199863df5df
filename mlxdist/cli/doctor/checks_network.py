"""What may be wrong with the networks between hosts, and how fast they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from mlxdist.cli.doctor import links
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, WARNING, Finding
from mlxdist.cli.launch import networks, ssh
from mlxdist.cli.launch.networks import HostNetworks


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
    """The links between the hosts, and those that are missing."""
    found = {} if env.launcher else {each.host: each for each in _networks(env.hosts)}
    for link in links.measure({host: [way.address for way in each.ways] for host, each in found.items()}):
        a, b = link.hosts
        if link.why:
            fact = f"{a} cannot open a TCP connection to {b}: {link.why}"
            yield Finding(WARNING, fact, "open the firewall between them for all ports: MPI takes any")
            continue
        ends = " to ".join(_end(found[host], address) for host, address in zip(link.hosts, link.addresses, strict=True))
        fact = f"{ends}: round trip {link.round_trip_s * 1e6:.0f} us, {_rate(link.bytes_per_s)} by one TCP connection"
        yield Finding(NOTE, fact, f"mlxdist launch --hosts {a},{b} -m mlxdist bench, which shows what ranks get of it")


def _networks(hosts: Sequence[str]) -> list[HostNetworks]:
    answers = ssh.ask(hosts, command=networks.question(hosts)) if len(hosts) > 1 else {}
    return [networks.answer(host, answer.printed) for host, answer in answers.items() if not answer.failure]


def _end(host: HostNetworks, address: str) -> str:
    name = next((each.name for each in host.interfaces if each.address == address), "")
    return f"{host.host} ({name} {address})".replace("( ", "(")


def _rate(bytes_per_s: float) -> str:
    megabits = bytes_per_s * 8e-6
    return f"{megabits / 1000:.1f} Gbit/s" if megabits >= 1000 else f"{megabits:.3g} Mbit/s"


# Each names the interfaces that an MPI may use.
_INTERFACES = {name for rule in networks.RULES for name in rule.variables} | {"HYDRA_IFACE", "I_MPI_HYDRA_IFACE"}


def loopback(env: Environment) -> Iterator[Finding]:
    """MPI may use the loopback interface only, which reaches no other host."""
    for name in sorted(name for name in _INTERFACES if env.hosts and env.environ.get(name) == "lo"):
        yield Finding(WARNING, f"{name}=lo keeps MPI from reaching other hosts", f"unset {name}")
