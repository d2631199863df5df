"""Messages around a ring of ranks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

import mlxdist as dist

Got = TypeVar("Got")


def around(group: dist.Group, send: Callable[[int], object], receive: Callable[[int], Got]) -> Got:
    """Send to the next rank and receive from the previous one; rank 0 begins, so that there is no deadlock."""
    following, before = (group.rank() + 1) % group.size(), (group.rank() - 1) % group.size()
    if group.rank() == 0:
        send(following)
        return receive(before)
    got = receive(before)
    send(following)
    return got


def needs_peers(group: dist.Group) -> None:
    if group.size() == 1:
        pytest.skip("a group of one has no peers")
