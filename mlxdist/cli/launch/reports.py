"""Where the ranks of a job report: each by a connection of its own, all into one queue."""

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
    """What a rank says: here, pid, out, err, aborting, end; or what its connection does: gone. With its particulars."""

    rank: int
    kind: str
    values: Sequence[Any] = ()


class Reports:
    """What the ranks say, in ``queue``; ``place`` is what they must know to find it."""

    def __init__(self, hosts: Sequence[str]) -> None:
        self.queue: queue.Queue[Report] = queue.Queue(1000)  # the ranks wait while nobody reads their output
        self._connections: dict[int, socket.socket] = {}
        self._token = secrets.token_hex(16)
        self._server = socket.create_server(("" if hosts else "127.0.0.1", 0), backlog=1000)
        port = self._server.getsockname()[1]
        self.place = json.dumps({"addresses": [(address, port) for address in _addresses(hosts)], "token": self._token})
        threading.Thread(target=self._accept, daemon=True).start()

    def signal(self, number: int) -> None:
        """Have a signal sent to every rank's program."""
        for connection in [*self._connections.values()]:
            with contextlib.suppress(OSError):
                connection.sendall(b"%d\n" % number)

    def hang_up(self, but: int | None = None) -> None:
        """Have the program of every rank, ``but`` one, ended; how it ended is still told."""
        for rank, connection in [*self._connections.items()]:
            if rank != but:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_WR)

    def _accept(self) -> None:
        while True:
            connection, _ = self._server.accept()
            threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: socket.socket) -> None:
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
                    _feed(connection)
                else:
                    self._hear(connection, lines, rank, host)

    def _hear(self, connection: socket.socket, lines: BinaryIO, rank: int, host: str) -> None:
        self._connections[rank] = connection
        self.queue.put(Report(rank, "here", (host,)))
        try:
            for line in lines:
                kind, *values = json.loads(line)
                self.queue.put(Report(rank, kind, values))
        finally:
            del self._connections[rank]
            self.queue.put(Report(rank, "gone"))


def _feed(connection: socket.socket) -> None:
    """Pass on what this process reads."""
    # A process in the background that read its terminal would be stopped.
    if not os.isatty(0) or os.tcgetpgrp(0) == os.getpgrp():
        while data := os.read(0, 1 << 16):
            connection.sendall(data)


def _addresses(hosts: Sequence[str]) -> list[str]:
    """Those of this machine by which ``hosts`` can reach it, the likeliest first."""
    if not hosts:
        return ["127.0.0.1"]
    found: dict[str, None] = {}
    for host in hosts:
        with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
            towards.connect((host, 9))  # sends nothing, only chooses the way
            found[towards.getsockname()[0]] = None
    with contextlib.suppress(OSError):  # hosts whose names only ssh knows
        found.update(dict.fromkeys(socket.gethostbyname_ex(socket.gethostname())[2]))
    return [*found] or ["127.0.0.1"]
