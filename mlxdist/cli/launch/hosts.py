"""Hosts and their slots, from the command line and from the hostfiles of Open MPI, MPICH and mlx.launch."""

from __future__ import annotations

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# host, host:2, host slots=2, and other attributes of Open MPI's hostfiles (max_slots=4)
_LINE = re.compile(r"(?P<name>[^\s:=,-][^\s:=,]*)(?::(?P<colon>\d+))?(?P<rest>(?:\s+\w+=\S+)*)")
_SLOTS = re.compile(r"\sslots=(\d+)\b")
MOST_RANKS = 1 << 20
LONGEST_FILE = 1 << 24  # characters


def is_number_of_ranks(text: str) -> bool:
    """Whether ``text`` is a number of ranks, or of slots for them."""
    return text.isdecimal() and len(text) <= len(str(MOST_RANKS)) and 0 < int(text) <= MOST_RANKS


@dataclass(frozen=True)
class Host:
    """A machine and its number of slots, one for each rank; None if that was not given."""

    name: str
    slots: int | None = None


def from_text(text: str) -> list[Host]:
    """The hosts of ``a:2,b``.

    Raises:
        argparse.ArgumentTypeError: a part of it is not a host.
    """
    return _merged(_host(part.strip(), f"{text!r}: ") for part in text.split(","))


def from_file(path: str) -> list[Host]:
    """The hosts in a file with lines ``host slots=2`` (Open MPI) or ``host:2`` (MPICH), or with mlx.launch's JSON.

    Raises:
        argparse.ArgumentTypeError: it cannot be read or parsed; the message names the line.
    """
    try:
        with open(path) as file:
            text = file.read(LONGEST_FILE + 1)  # it may be a device
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path}: {getattr(error, 'strerror', error)}") from None
    if len(text) > LONGEST_FILE:
        raise argparse.ArgumentTypeError(f"{path} is too long for a list of hosts: write lines like 'node1 slots=2'")
    if text.lstrip().startswith(("[", "{")):
        return _from_json(path, text)
    lines = [(number, line.partition("#")[0].strip()) for number, line in enumerate(text.splitlines(), 1)]
    found = _merged(_host(line, f"{path}, line {number}: ") for number, line in lines if line)
    if not found:
        raise argparse.ArgumentTypeError(f"{path} names no host: write lines like 'node1 slots=2'")
    return found


def spread(hosts: Sequence[Host], size: int) -> list[tuple[str, int]]:
    """The slots of each host for ``size`` ranks; hosts without a number share the remaining ranks equally."""
    open_hosts = sum(host.slots is None for host in hosts)
    rest = size - sum(host.slots or 0 for host in hosts)
    share = max(1, -(-rest // open_hosts)) if open_hosts else 0
    return [(host.name, share if host.slots is None else host.slots) for host in hosts]


def _host(text: str, place: str) -> Host:
    found = _LINE.fullmatch(text)
    slots = (found["colon"] or "".join(_SLOTS.findall(found["rest"])[:1])) if found else ""
    if not found or (slots and not is_number_of_ranks(slots)):
        raise argparse.ArgumentTypeError(f"{place}{text!r} is not a host: write 'node1', 'node1:2' or 'node1 slots=2'")
    return Host(found["name"], int(slots) if slots else None)


def _from_json(path: str, text: str) -> list[Host]:
    try:
        whole = json.loads(text)
    except json.JSONDecodeError as error:
        raise argparse.ArgumentTypeError(f"{path}, line {error.lineno}: {error.msg}") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists in lists
        raise argparse.ArgumentTypeError(f"{path} is no JSON of hosts: {error}") from None
    entries = whole.get("hosts") if isinstance(whole, dict) else whole
    listed = entries if isinstance(entries, list) else []
    names = [entry.get("ssh") if isinstance(entry, dict) else entry for entry in listed]
    if not names or not all(isinstance(name, str) for name in names):
        raise argparse.ArgumentTypeError(
            f'{path} is not a list of hosts: write [{{"ssh": "node1"}}, {{"ssh": "node2"}}]'
        )
    return _merged(_host(str(name), f"{path}: ") for name in names)


def _merged(hosts: Iterable[Host]) -> list[Host]:
    """Each host once. A host that is repeated gets one more slot each time, as with Open MPI."""
    every = list(hosts)
    times = Counter(host.name for host in every)
    slots = Counter[str]()
    for host in every:
        slots[host.name] += host.slots or 1
    open_hosts = {host.name for host in every if host.slots is None and times[host.name] == 1}
    return [Host(name, None if name in open_hosts else slots[name]) for name in times]
