"""Measures the links between hosts: a small program on each, told by this one whom to measure and when."""

from __future__ import annotations

import contextlib
import json
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

from mlxdist.cli.doctor import link
from mlxdist.cli.launch import ssh

START_S = 10.0
ROUND_S = 20.0  # a measurement takes less than 1 s where all addresses answer


@dataclass(frozen=True)
class Link:
    """The link from one host to another.

    Attributes:
        hosts: their names.
        addresses: those of the connection; empty if there is none.
        round_trip_s, bytes_per_s: of one TCP connection.
        why: why there is no link.
    """

    hosts: tuple[str, str]
    addresses: tuple[str, ...] = ()
    round_trip_s: float = 0.0
    bytes_per_s: float = 0.0
    why: str = ""


def rounds(many: int) -> Iterator[list[tuple[int, int]]]:
    """All pairs of ``many`` hosts, in rounds in which no host is in two pairs."""
    seats = [*range(many), *([-1] if many % 2 else [])]
    for _ in range(len(seats) - 1):
        pairs = zip(seats[: len(seats) // 2], reversed(seats), strict=False)
        yield [(min(pair), max(pair)) for pair in pairs if min(pair) >= 0]
        seats.insert(1, seats.pop())


def measure(addresses: Mapping[str, Sequence[str]]) -> Iterator[Link]:
    """The link of each pair of hosts that can be asked.

    Args:
        addresses: those of each host by which the others may reach it, if its name is not known to them.
    """
    command = shlex.join([sys.executable, "-IS", link.__file__])
    with contextlib.ExitStack() as all_ends:
        started = [(name, all_ends.enter_context(_started([*ssh.shell_on(name), command]))) for name in addresses]
        ends = [(name, end, contact) for name, end in started if (contact := _answer(end, START_S))]
        for pairs in rounds(len(ends)):
            for a, b in pairs:
                name, _, contact = ends[b]
                _ask(ends[a][1], addresses=[name.rpartition("@")[2], *addresses[name]], **contact)
            for a, b in pairs:
                found = _answer(ends[a][1], ROUND_S) or {"why": "no answer"}
                yield Link((ends[a][0], ends[b][0]), **{**found, "addresses": tuple(found.get("addresses", ()))})


@contextlib.contextmanager
def _started(command: Sequence[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(end: subprocess.Popen[str], **what: object) -> None:
    assert end.stdin
    with contextlib.suppress(BrokenPipeError):
        end.stdin.write(json.dumps(what) + "\n")
        end.stdin.flush()


def _answer(end: subprocess.Popen[str], limit_s: float) -> dict[str, Any]:
    """The next answer; empty, and the process is killed, if it does not come in time."""
    assert end.stdout
    timer = threading.Timer(limit_s, end.kill)
    timer.start()
    try:
        return _next(end.stdout)
    finally:
        timer.cancel()


def _next(lines: IO[str]) -> dict[str, Any]:
    for line in lines:
        if line.startswith(link.MARK):
            found: dict[str, Any] = json.loads(line.removeprefix(link.MARK))
            return found
    return {}
