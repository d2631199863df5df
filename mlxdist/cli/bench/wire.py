"""The network between the hosts: what a plain TCP stream reaches in it, and how much each host has sent.

Each host sends to the next one and receives from the one before, all at the same time, as the steps of a collective do.
"""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import mlxdist as dist
from mlxdist.cli.bench import hosts
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.hosts import Hosts
from mlxdist.cli.launch import interfaces
from mlxdist.cli.objects import all_gather_object
from mlxdist.mpi import processes

WARM_S = 0.1  # until TCP has found its rate, and a token bucket of the network is empty
MEASURED_S = 0.3
CONNECT_S = 2.0  # for each address
PIECE = 1 << 20
COUNTERS = Path("/proc/net/dev")  # unlike /sys, always of the network namespace of this process
SENT = 8  # the field with the bytes that were sent, after the name
NETSTAT = ("/usr/sbin/netstat", "-ibn")  # BSD's counters


@dataclass(frozen=True)
class Wire:
    """What connects the hosts.

    Attributes:
        hosts: the hosts that it connects.
        why: why it could not be measured; empty if it was.
        addresses: of each host, by which the one before reaches it.
        interfaces: of each host, the network interfaces that lead to its neighbours.
        rates: bytes/s that each host received, while all of them sent and received.
    """

    hosts: Hosts
    why: str = ""
    addresses: Sequence[str] = ()
    interfaces: Sequence[Sequence[str]] = ()
    rates: Sequence[float] = ()

    @property
    def rate(self) -> float:
        """Bytes/s of the slowest link, each way."""
        return min(self.rates)

    def least_s(self, case: Case) -> float:
        """What a case takes if the least bytes go over the wire at its rate."""
        return max(max(host.sent, host.received) for host in hosts.least(case, self.hosts)) / self.rate

    def sent_nbytes(self) -> int:
        """The bytes that this host has sent to others since it was booted; -1 if that is not known."""
        try:
            names = self.interfaces[self.hosts.host_of[dist.init().rank()]]
        except IndexError:  # not measured
            return -1
        counts = [nbytes for name, nbytes in sent_by_interface().items() if name in names]
        return sum(counts) if counts else -1


def sent_by_interface() -> dict[str, int]:
    """The bytes that each interface has sent; empty where the system does not say."""
    with contextlib.suppress(OSError):
        lines = [line.partition(":") for line in COUNTERS.read_text().splitlines()]
        return {name.strip(): int(fields.split()[SENT]) for name, colon, fields in lines if colon}
    return counted(processes.output_of(NETSTAT))


def counted(printed: str) -> dict[str, int]:
    """The bytes that each interface has sent, in what BSD's netstat prints."""
    rows = [line.split() for line in printed.splitlines()]
    # The rows of the link count all; an interface that is down has a * behind its name. The loopback has no address
    # there, so the columns are counted from the end.
    from_end = rows[0].index("Obytes") - len(rows[0]) if rows and "Obytes" in rows[0] else 0
    links = (row for row in rows[1:] if len(row) > 2 and row[2].startswith("<Link#"))
    return {row[0].rstrip("*"): int(row[from_end]) for row in links if from_end}


@cache
def between_hosts() -> Wire | None:
    """The wire, measured by the first call, which every rank must make; None if all ranks are on one host."""
    found = hosts.find()
    return _measured(found) if len(found.names) > 1 else None


def _measured(found: Hosts) -> Wire:
    rank = dist.init().rank()
    host = found.host_of[rank]
    leads = rank == found.leaders[host]
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("", 0))) if leads else None
        contact = [_addresses(), server.getsockname()[1], secrets.token_hex(8)] if server else None
        contacts = [part for part in all_gather_object(contact) if part]
        ends, why = [], ""
        if server:
            try:
                ends = [stack.enter_context(end) for end in _connect(server, contacts, host)]
            except OSError as error:
                following = (host + 1) % len(contacts)
                tried = ", ".join(contacts[following][0]) or "any address"
                why = f"{found.names[host]} cannot reach {found.names[following]} at {tried} ({error})"
        failures = list(filter(None, all_gather_object(why)))
        if failures:
            return Wire(found, why=failures[0])
        dist.barrier()
        mine = None
        if ends:
            names, own = _names(), [end.getsockname()[0] for end in ends]
            mine = [own[1], sorted({names[address] for address in own if address in names}), stream(*ends)]
        else:
            time.sleep(WARM_S + MEASURED_S)  # a rank that waits in a collective would take a core
    addresses, ways, rates = zip(*filter(None, all_gather_object(mine)), strict=True)
    why = "" if all(rates) else "no data came through"
    return Wire(found, why, addresses, ways, rates)


def _names() -> dict[str, str]:
    """The network interface of each IPv4 address of this host."""
    return {each.address: each.name for each in interfaces.interfaces()}


def _addresses() -> list[str]:
    """The addresses by which others may reach this host, first those that its name stands for."""
    named: list[str] = []
    with contextlib.suppress(OSError):
        named = socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in dict.fromkeys([*named, *_names()]) if not address.startswith("127.")]


def _connect(server: socket.socket, contacts: Sequence[Any], host: int) -> list[socket.socket]:
    """The connections to the next host and from the one before."""
    addresses, port, token = contacts[(host + 1) % len(contacts)]
    longest = max(len(contact[0]) for contact in contacts)
    server.settimeout(CONNECT_S * (longest + 1))
    with ThreadPoolExecutor(1) as threads:
        accepted = threads.submit(_accept, server, contacts[host][2].encode())
        return [_reach(addresses, port, token.encode()), accepted.result()]


def _reach(addresses: Sequence[str], port: int, token: bytes) -> socket.socket:
    last = OSError("it has no address")
    for address in addresses:
        try:
            connection = socket.create_connection((address, port), timeout=CONNECT_S)
            connection.sendall(token)
            if connection.recv(1):  # another host with the same address, such as a container bridge, says nothing
                return connection
            connection.close()
        except OSError as error:
            last = error
    raise last


def _accept(server: socket.socket, token: bytes) -> socket.socket:
    while True:
        connection, _ = server.accept()
        connection.settimeout(CONNECT_S)
        with contextlib.suppress(OSError):
            if secrets.compare_digest(connection.recv(len(token), socket.MSG_WAITALL), token):
                connection.sendall(b"\n")
                return connection
        connection.close()


def stream(to: socket.socket, source: socket.socket) -> float:
    """Bytes/s that come from ``source`` while as much as possible is sent ``to`` the next host."""
    with ThreadPoolExecutor(1) as threads:
        threads.submit(_send, to)
        buffer = bytearray(PIECE)
        began = start = last = 0.0
        count = 0
        with contextlib.suppress(OSError):  # the host before has seen enough of its own
            while last < began + WARM_S + MEASURED_S or not began:
                received = source.recv_into(buffer)
                if not received:
                    break
                last = time.monotonic()
                began = began or last
                if last < began + WARM_S:
                    start, count = last, 0
                else:
                    count += received
        source.close()
    return count / (last - start) if count else 0.0


def _send(to: socket.socket) -> None:
    until = time.monotonic() + WARM_S + MEASURED_S + CONNECT_S
    piece = bytes(PIECE)
    with contextlib.suppress(OSError):  # the next host has seen enough
        while time.monotonic() < until:
            to.send(piece)
