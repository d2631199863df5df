"""The network interfaces of a host, and which of them lead to other hosts.

    python -IS interfaces.py HOST...

mlxdist launch and doctor run it on each host, by its path; it imports the standard library only. It prints a line of
JSON. Linux is asked by ioctl; other systems have other numbers for the questions, so there ifconfig is.
"""

from __future__ import annotations

import contextlib
import fcntl
import ipaddress
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import NamedTuple

MARK = "mlxdist.interfaces: "  # in front of the JSON, since a login script may print other lines
RESOLVE_S = 2.0  # for the names of all hosts: a resolver that nobody answers takes longer
FLAGS, ADDRESS, NETMASK = 0x8913, 0x8915, 0x891B  # SIOCGIF... of Linux
UP, LOOPBACK, RUNNING = 0x1, 0x8, 0x40
REQUEST = "16s24s"  # struct ifreq
ANY_PORT = 9  # nothing is sent to it
IFCONFIG = ("/sbin/ifconfig", "-a")
IFCONFIG_S = 5.0


class Interface(NamedTuple):
    """An interface that is up and has an IPv4 address, without those of the loopback.

    Attributes:
        name: such as eth0.
        address: its first IPv4 address.
        network: that of the address, such as 10.1.0.0/16.
        has_carrier: whether something is connected to it.
        is_bridge: whether it connects virtual machines or containers, or other interfaces.
    """

    name: str
    address: str
    network: str
    has_carrier: bool
    is_bridge: bool


def interfaces() -> list[Interface]:
    """The interfaces of this host; none where the system does not say."""
    if sys.platform == "linux":
        return list(_asked())
    try:
        printed = subprocess.run(IFCONFIG, capture_output=True, timeout=IFCONFIG_S).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return list(listed(os.fsdecode(printed)))


def _asked() -> Iterator[Interface]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:

        def answer(question: int, name: str) -> bytes:
            request = struct.pack(REQUEST, os.fsencode(name), b"")
            return bytes(struct.unpack(REQUEST, fcntl.ioctl(asked, question, request))[1])

        for _, name in socket.if_nameindex():
            with contextlib.suppress(OSError):  # it has no IPv4 address
                flags = struct.unpack_from("H", answer(FLAGS, name))[0]
                address, mask = (socket.inet_ntoa(answer(which, name)[4:8]) for which in (ADDRESS, NETMASK))
                if flags & UP and not flags & LOOPBACK:
                    is_bridge = os.path.isdir(f"/sys/class/net/{name}/bridge")
                    yield Interface(name, address, network_of(address, mask), bool(flags & RUNNING), is_bridge)


def listed(printed: str) -> Iterator[Interface]:
    """The interfaces in what BSD's ifconfig prints."""
    for paragraph in re.split(r"^(?=\S)", printed, flags=re.MULTILINE):
        head = re.match(r"(\S+): flags=\w+<(.*?)>", paragraph)
        # of a tunnel: inet 10.0.0.2 --> 10.0.0.1 netmask 0xffffff00
        own = re.search(r"^\s+inet ([\d.]+) (?:--> [\d.]+ )?netmask 0x([0-9a-f]{8})\b", paragraph, re.MULTILINE)
        flags = head[2].split(",") if head else []
        if head and own and "UP" in flags and "LOOPBACK" not in flags:
            # RUNNING says nothing of a cable there. What has no medium, such as a tunnel, has no status either.
            has_carrier = "status: inactive" not in paragraph
            is_bridge = bool(re.search(r"^\s+(member: |Configuration:)", paragraph, re.MULTILINE))
            network = network_of(own[1], socket.inet_ntoa(bytes.fromhex(own[2])))
            yield Interface(head[1], own[1], network, has_carrier, is_bridge)


def network_of(address: str, mask: str) -> str:
    """Such as 10.1.0.0/16."""
    return str(ipaddress.ip_network(f"{address}/{mask}", strict=False))


def address_towards(host: str) -> str:
    """The address from which this host reaches ``host``; empty if its name is not known here, or means this host."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
        route.connect((host.rpartition("@")[2], ANY_PORT))
        own, other = route.getsockname()[0], route.getpeername()[0]
        return str(own) if own != other else ""
    return ""


def describe(hosts: Sequence[str]) -> None:
    """Print the interfaces, and the addresses from which ``hosts`` are reached."""
    towards: list[str] = []
    resolving = threading.Thread(target=lambda: towards.extend(map(address_towards, hosts)), daemon=True)
    resolving.start()
    resolving.join(RESOLVE_S)
    print(f"{MARK}{json.dumps([interfaces(), towards])}", flush=True)


if __name__ == "__main__":
    describe(sys.argv[1:])
    os._exit(0)  # a thread may still wait for a name
