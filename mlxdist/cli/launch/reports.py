"""The reports of all ranks: each rank has a connection of its own, and all of them end in one queue."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import secrets
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

LONGEST_HELLO = 1000


@dataclass(frozen=True)
class Report:
    """What a rank reports.

    Attributes:
        rank: its number.
        kind: "started", "out", "err", "aborting" or "ended"; or, of its connection, "connected" or "disconnected".
        values: depend on the kind.
    """

    rank: int
    kind: str
    values: Sequence[Any] = ()


class Reports:
    """A server for the ranks' reports, which go to ``queue``; ``contact`` tells the ranks how to reach it."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.queue: queue.Queue[Report] = queue.Queue(1000)  # bounded: ranks that print faster than we show it wait
        self._connections: dict[int, socket.socket] = {}
        self._token = secrets.token_hex(16)
        self._server = socket.create_server(("" if hosts else "127.0.0.1", 0), backlog=1000)
        port = self._server.getsockname()[1]
        addresses = [(address, port) for address in _addresses(hosts)]
        self.contact = json.dumps({"addresses": addresses, "token": self._token})
        threading.Thread(target=self._accept, daemon=True).start()

    def signal(self, number: int) -> None:
        """Have a signal sent to every rank's program."""
        for connection in [*self._connections.values()]:
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % number)

    def stop_ranks(self, but: int | None = None) -> None:
        """Have the program of every rank stopped, except that of rank ``but``; how each ended is still reported."""
        for rank, connection in [*self._connections.items()]:
            if rank != but:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as lines:
            try:
                token, purpose, rank, host = json.loads(lines.readline(LONGEST_HELLO))
            except (OSError, ValueError, TypeError):
                return
            if token != self._token:
                return
            with contextlib.suppress(OSError):  # the connection is lost
                connection.sendall(b"\n")
                if purpose == "stdin":
                    _forward_stdin(connection)
                else:
                    self._receive(connection, lines, rank, host)

    def _receive(self, connection: socket.socket, lines: BinaryIO, rank: int, host: str) -> None:
        self._connections[rank] = connection
        self.queue.put(Report(rank, "connected", (host,)))
        try:
            for line in lines:
                kind, *values = json.loads(line)
                self.queue.put(Report(rank, kind, values))
        finally:
            del self._connections[rank]
            self.queue.put(Report(rank, "disconnected"))


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
