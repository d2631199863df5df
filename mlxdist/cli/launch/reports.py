"""The connections of all ranks: for their reports, which end in one queue, for what they print, and for rank 0's stdin.

Anybody may connect. Who has not said the token yet is a stranger: there are few of them at a time, and none for long.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import resource
import secrets
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from mlxdist.cli.launch.output import Output

HELLO_S = 5.0
LONGEST_HELLO = 1000
MOST_STRANGERS = 200
PER_RANK = 4  # connections
OWN_FILES = 100  # descriptors of this process, beside those of the connections
RETRY_S = 0.1


@dataclass(frozen=True)
class Report:
    """What a rank reports.

    Attributes:
        rank: its number.
        kind: "started", "leaving", "aborting" or "ended"; or, of a connection, "connected" or "disconnected".
        values: depend on the kind.
    """

    rank: int
    kind: str
    values: Sequence[Any] = ()


class Reports:
    """A server for ``size`` ranks, whose reports go to ``queue``; ``contact`` tells the ranks how to reach it.

    Args:
        hosts: other machines on which there are ranks; without any, nothing but this machine can connect.
        output: shows what the ranks print.
    """

    def __init__(self, size: int, hosts: Sequence[str], output: Output) -> None:
        self.queue: queue.SimpleQueue[Report] = queue.SimpleQueue()
        self._output = output
        self._connections: dict[int, socket.socket] = {}
        self._strangers: deque[socket.socket] = deque()
        self._token = secrets.token_hex(16)
        _allow_files(PER_RANK * size + MOST_STRANGERS + OWN_FILES)
        self._server = socket.create_server(("" if hosts else "127.0.0.1", 0), backlog=1000)
        port = self._server.getsockname()[1]
        addresses = [(address, port) for address in _addresses(hosts)]
        self.contact = json.dumps({"addresses": addresses, "token": self._token})
        threading.Thread(target=self._accept, daemon=True).start()

    def signal(self, number: int) -> None:
        """Have a signal sent to every rank's program, or STOP."""
        for connection in [*self._connections.values()]:
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % number)

    def let_go(self) -> None:
        """Have every rank stopped that still runs, and let all of them end; how each ended is still reported."""
        for connection in [*self._connections.values()]:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_WR)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._server.accept()
                self._strangers.append(connection)
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()
                if len(self._strangers) > MOST_STRANGERS:
                    self._refuse_oldest()
            except (OSError, RuntimeError):  # no more descriptors or threads
                self._refuse_oldest()
                time.sleep(RETRY_S)

    def _refuse_oldest(self) -> None:
        with contextlib.suppress(IndexError, OSError):
            self._strangers.popleft().shutdown(socket.SHUT_RDWR)  # its thread closes it

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):  # the connection is lost
            try:
                token, purpose, rank, host = _hello(connection)
                known = secrets.compare_digest(token, self._token)
            except (OSError, ValueError, TypeError, RecursionError):
                known = False
            with contextlib.suppress(ValueError):
                self._strangers.remove(connection)
            if not known:
                return
            if purpose == "stdin":
                connection.sendall(b"\n")
                _forward_stdin(connection)
                return
            if purpose == "reports":
                self._connections[rank] = connection
            self.queue.put(Report(rank, "connected", (purpose, host)))
            try:
                connection.sendall(b"\n")
                if purpose == "reports":
                    self._receive(connection, rank)
                else:
                    self._output.copy(rank, purpose, connection)
            finally:
                if purpose == "reports":
                    self._connections.pop(rank, None)
                self.queue.put(Report(rank, "disconnected", (purpose,)))

    def _receive(self, connection: socket.socket, rank: int) -> None:
        with connection.makefile("rb") as lines:
            for line in lines:
                kind, *values = json.loads(line)
                self.queue.put(Report(rank, kind, values))


def _hello(connection: socket.socket) -> Any:
    """The first line that comes by ``connection``."""
    until = time.monotonic() + HELLO_S
    line = b""
    while not line.endswith(b"\n") and len(line) < LONGEST_HELLO:
        connection.settimeout(max(RETRY_S, until - time.monotonic()))
        part = connection.recv(LONGEST_HELLO)
        if not part or time.monotonic() > until:
            break
        line += part
    connection.settimeout(None)
    return json.loads(line)


def _allow_files(many: int) -> None:
    """Raise the soft limit of descriptors to ``many``, if it is lower."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = many if hard == resource.RLIM_INFINITY else min(many, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _forward_stdin(connection: socket.socket) -> None:
    # A process in the background that reads from its terminal is stopped.
    if not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp():
        while data := os.read(0, 1 << 16):
            connection.sendall(data)


def _addresses(hosts: Sequence[str]) -> list[str]:
    """The addresses by which ``hosts`` can reach this machine, the likeliest first."""
    if not hosts:
        return ["127.0.0.1"]
    found: dict[str, None] = {}
    for host in hosts:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:
            route.connect((host, 9))  # sends nothing, but chooses an interface
            found[route.getsockname()[0]] = None
    with contextlib.suppress(OSError):  # hosts whose names only ssh knows
        found.update(dict.fromkeys(socket.gethostbyname_ex(socket.gethostname())[2]))
    return [*found] or ["127.0.0.1"]
