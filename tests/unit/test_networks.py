"""Which networks may mislead which MPI, as it was seen on two hosts, and what is said about them."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import macos
import pytest

from mlxdist.cli.doctor import checks_network, links
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.links import Link
from mlxdist.cli.launch import interfaces, networks
from mlxdist.cli.launch.interfaces import Interface
from mlxdist.cli.launch.networks import HostNetworks
from mlxdist.mpi import search
from mlxdist.mpi.launchers import LibraryInfo

OPEN_MPI = LibraryInfo("/o/lib/libmpi.so.40", "openmpi", "Open MPI v5.0.11, package: x")
MPICH = LibraryInfo("/m/lib/libmpi.so.12", "mpich", "MPICH Version:      5.0.2")
OLD_MPICH = LibraryInfo("/m/lib/libmpich.so.12", "mpich", "MPICH Version:      4.0.2")
INTEL = LibraryInfo("/i/lib/libmpi.so.12", "mpich", "Intel(R) MPI Library 2021.18 for Linux* OS")
EVERY = (OPEN_MPI, MPICH, OLD_MPICH, INTEL)

BUSY = Interface("docker0", "172.17.0.1", "172.17.0.0/16", has_carrier=True, is_bridge=True)
IDLE = BUSY._replace(has_carrier=False)
NO_BRIDGE = BUSY._replace(name="vboxnet0", is_bridge=False)
SAME_ADDRESS = NO_BRIDGE._replace(name="x0")


def ethernet(number: int, name: str = "eth0", third: int = 0) -> Interface:
    return Interface(name, f"10.1.{third}.{number}", f"10.1.{third}.0/24", has_carrier=True, is_bridge=False)


def host(number: int, *others: Interface, way: str = "eth0") -> HostNetworks:
    real = ethernet(number, way)
    return HostNetworks(f"h{number}", (real, *others), (real,))


@pytest.mark.parametrize(
    ("others", "misled"),
    [
        (([], []), []),
        (([BUSY], [BUSY]), [OPEN_MPI, OLD_MPICH, INTEL]),
        (([IDLE], [IDLE]), [OPEN_MPI, OLD_MPICH]),
        (([NO_BRIDGE], [NO_BRIDGE]), EVERY),
        (([SAME_ADDRESS], [SAME_ADDRESS]), EVERY),
        (([BUSY], []), [INTEL]),
        (([ethernet(1, "eth1", 7)], [ethernet(2, "eth1", 7)]), []),
    ],
    ids=["none", "docker0", "docker0, no container", "no bridge", "an address twice", "one host", "another network"],
)
def test_who_is_misled(others: tuple[list[Interface], list[Interface]], misled: list[LibraryInfo]) -> None:
    hosts = [host(number, *more) for number, more in enumerate(others, 1)]
    assert [library for library in EVERY if networks.misleading(hosts, library)] == list(misled)


@pytest.mark.parametrize(
    ("library", "ways", "remedy"),
    [
        (OPEN_MPI, ("eth0", "eth0"), "export OMPI_MCA_btl_tcp_if_include=eth0"),
        (OPEN_MPI, ("eth0", "eno1"), "export OMPI_MCA_btl_tcp_if_include=10.1.0.0/24"),
        (MPICH, ("eth0", "eth0"), "export UCX_NET_DEVICES=eth0 FI_SOCKETS_IFACE=eth0 FI_TCP_IFACE=eth0"),
        (MPICH, ("eth0", "eno1"), "export UCX_NET_DEVICES=eth0,eno1 "),
        (INTEL, ("eth0", "eth0"), "export FI_TCP_IFACE=eth0"),
        (INTEL, ("eth0", "eno1"), "ip link set vboxnet0 down"),
    ],
)
def test_remedies(library: LibraryInfo, ways: tuple[str, str], remedy: str) -> None:
    hosts = [host(number, NO_BRIDGE, way=way) for number, way in enumerate(ways, 1)]
    warning = networks.warning(hosts, library)
    assert warning
    assert warning[0].endswith(" through virtual networks: vboxnet0 (172.17.0.1) on h1, h2")
    assert warning[1].startswith(remedy)


def test_a_tunnel_that_is_the_only_way_is_used() -> None:
    assert not networks.misleading([host(1, way="wg0"), host(2, way="wg0")], OPEN_MPI)


def test_no_judgement_without_a_known_way() -> None:
    assert not networks.misleading([HostNetworks(f"h{number}", (BUSY,), ()) for number in (1, 2)], OPEN_MPI)


@pytest.mark.parametrize(
    ("library", "environ", "words", "told"),
    [
        (OPEN_MPI, {}, [], False),
        (OPEN_MPI, {"OMPI_MCA_btl_tcp_if_include": "eth0"}, [], True),
        (OPEN_MPI, {"OMPI_MCA_btl_tcp_if_exclude": "lo,docker0"}, [], True),
        (OPEN_MPI, {}, ["--mca", "btl_tcp_if_include", "eth0"], True),
        (OPEN_MPI, {"UCX_NET_DEVICES": "eth0"}, [], False),
        (MPICH, {"UCX_NET_DEVICES": "eth0"}, [], True),
        (MPICH, {"FI_TCP_IFACE": "eth0"}, [], False),
        (INTEL, {}, ["-genv", "FI_TCP_IFACE", "eth0"], True),
    ],
)
def test_who_has_been_told(library: LibraryInfo, environ: dict[str, str], words: list[str], told: bool) -> None:
    assert networks.is_told(library, environ, words) == told


def test_answers() -> None:
    described = json.dumps([[ethernet(1), BUSY], ["", "10.1.0.1"]])
    assert networks.answer("h1", f"Welcome\n{interfaces.MARK}{described}\n") == host(1, BUSY)
    for other in ("Welcome\n", f"{interfaces.MARK}[[", f"{interfaces.MARK}[[[1]], []]"):
        assert networks.answer("h1", other) == HostNetworks("h1", (), ())


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")
def test_this_host_is_described() -> None:
    """The same as iproute2 says; a name that nobody knows costs nothing."""
    question = networks.question(["no-such-host.invalid", "localhost"])
    printed = subprocess.run(["sh", "-c", question], capture_output=True, text=True, timeout=30, check=True).stdout
    found = networks.answer("here", printed)
    assert not found.ways
    try:
        listed = json.loads(subprocess.check_output(["ip", "-json", "-4", "address", "show", "up"], text=True))
    except OSError:
        pytest.skip("iproute2, the reference, is not installed")
    expected = {
        each["ifname"]: f"{each['addr_info'][0]['local']}/{each['addr_info'][0]['prefixlen']}"
        for each in listed
        if each["ifname"] != "lo"
    }
    assert {each.name: f"{each.address}/{each.network.partition('/')[2]}" for each in found.interfaces} == expected


MAC = (
    Interface("en0", "192.168.178.23", "192.168.178.0/24", has_carrier=True, is_bridge=False),
    Interface("en7", "10.20.0.5", "10.20.0.0/16", has_carrier=False, is_bridge=False),
    Interface("bridge0", "10.0.0.1", "10.0.0.0/30", has_carrier=True, is_bridge=True),
    Interface("utun4", "100.100.7.7", "100.100.7.7/32", has_carrier=True, is_bridge=False),
    Interface("bridge100", "192.168.64.1", "192.168.64.0/24", has_carrier=True, is_bridge=True),
)


def test_a_mac_is_described(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "printed").write_text(macos.IFCONFIG)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(interfaces, "IFCONFIG", ("cat", str(tmp_path / "printed")))
    assert tuple(interfaces.interfaces()) == MAC
    assert [way.name for way in networks.here().ways] == ["en0", "en7", "bridge0"]


@pytest.mark.parametrize(
    "command", [("/nowhere/ifconfig",), ("false",), ("echo", "en0: flags=8863<UP> mtu 1500"), ("sleep", "60")]
)
def test_an_ifconfig_that_does_not_work(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(interfaces, "IFCONFIG", command)
    monkeypatch.setattr(interfaces, "IFCONFIG_S", 1.0)
    assert interfaces.interfaces() == []


def test_virtual_machines_on_two_macs_mislead(monkeypatch: pytest.MonkeyPatch) -> None:
    """The Macs reach each other through the Thunderbolt cable; the bridge of virtual machines has the same address."""
    en0, _, cable, _, virtual = MAC
    macs = [
        HostNetworks(f"mac{number}", (en0._replace(address=f"192.168.178.{number}"), own, virtual), (own,))
        for number, own in ((1, cable), (2, cable._replace(address="10.0.0.2")))
    ]
    monkeypatch.setattr(sys, "platform", "darwin")
    for library in (OPEN_MPI, MPICH):
        assert networks.misleading(macs, library) == {virtual: ["mac1", "mac2"]}
    warning = networks.warning(macs, OPEN_MPI)
    assert warning
    assert warning[1] == "export OMPI_MCA_btl_tcp_if_include=bridge0"


@pytest.mark.parametrize("many", range(1, 8))
def test_each_pair_of_hosts_once_and_no_host_twice_at_a_time(many: int) -> None:
    every = list(links.rounds(many))
    assert sorted(itertools.chain(*every)) == list(itertools.combinations(range(many), 2))
    for pairs in every:
        busy = list(itertools.chain(*pairs))
        assert len(busy) == len(set(busy))
    assert len(every) <= max(1, many)


def test_a_link_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this machine to itself; the second host has an address at which nobody answers before the right one."""
    monkeypatch.setattr(links.ssh, "shell_on", lambda host: ["sh", "-c"])
    (link,) = links.measure({"no-such-host.invalid": [], "neither.invalid": ["127.0.0.1"]})
    assert not link.why
    assert link.addresses == ("127.0.0.1", "127.0.0.1")
    assert 0 < link.round_trip_s < 1
    assert link.bytes_per_s > 1e6


def test_a_missing_link_and_a_host_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(links.ssh, "shell_on", lambda host: ["false" if host == "silent" else "sh", "-c"])
    (link,) = links.measure({"a": [], "silent": [], "no-such-host.invalid": []})
    assert link.hosts == ("a", "no-such-host.invalid")
    assert link.why


def test_what_doctor_says_about_links(monkeypatch: pytest.MonkeyPatch) -> None:
    """All that there are in a note; those that are missing or slow in warnings."""
    address = "10.1.0.{}".format
    every = [
        Link(("h1", "h2"), (address(1), address(2)), 80e-6, 117.4e6),
        Link(("h1", "h3"), (address(1), "10.9.9.9"), 210e-6, 11.7e6),
        Link(("h2", "h3"), why="10.1.0.3: timed out"),
    ]
    context = search.Context.here(None)
    env = Environment(context, (), (), MPICH, "", "", (), 3, ("h1", "h2", "h3"))
    monkeypatch.setattr(checks_network, "_networks", lambda hosts: [host(number) for number in (1, 2, 3)])
    monkeypatch.setattr(links, "measure", lambda addresses: every if addresses["h2"] == [address(2)] else [])
    slow, missing, note = checks_network.measured(env)
    lines = [
        "h1 (eth0 10.1.0.1) to h2 (eth0 10.1.0.2): round trip 80 us, 939 Mbit/s",
        "h1 (eth0 10.1.0.1) to h3 (10.9.9.9): round trip 210 us, 93.6 Mbit/s",
    ]
    assert note.fact.splitlines()[1:] == lines
    assert slow.fact == f"{lines[1]}, much less than 939 Mbit/s elsewhere"
    assert missing.fact == "h2 cannot open a TCP connection to h3: 10.1.0.3: timed out"
    assert [finding.severity for finding in (slow, missing, note)] == ["warning", "warning", "note"]
