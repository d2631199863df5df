"""The start of a process group: rank and size come from MPI, and so does what torch.distributed asks ``env://`` for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
from torch import distributed
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import _rendezvous_handlers

from mlxdist import config, ops, world

HOST_NBYTES = 256
_of_environment = _rendezvous_handlers["env"]


def register() -> None:
    """Let ``init_process_group`` without rank, size or address find them; with all of them it works as before."""
    _rendezvous_handlers["env"] = _find_each_other


def _find_each_other(url: str, timeout: timedelta = default_pg_timeout, **kwargs: Any) -> Iterator[Any]:
    """A store that all ranks reach, this process's rank, and how many there are; what torch.distributed calls."""
    has_address = config.MASTER_ADDR.get() and config.MASTER_PORT.get()
    if not (has_address and config.RANK.get() and config.WORLD_SIZE.get()):
        everyone = world.init()
        for variable, value in (
            (config.RANK, everyone.rank()),
            (config.WORLD_SIZE, everyone.size()),
            (config.LOCAL_RANK, everyone.local_rank()),
            (config.LOCAL_WORLD_SIZE, everyone.local_size()),
        ):
            os.environ.setdefault(variable.name, str(value))
        if not has_address:
            passed = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
            rank, size = passed.get("rank", config.RANK.get()), passed.get("world_size", config.WORLD_SIZE.get())
            return iter([(_store(everyone, timeout), int(rank), int(size))])
    found: Iterator[Any] = _of_environment(url, timeout=timeout, **kwargs)
    return found


def _store(everyone: world.Group, timeout: timedelta) -> Any:
    """Kept by rank 0, at a port that is free there."""
    if everyone.size() == 1:
        return distributed.HashStore()
    address = np.zeros(HOST_NBYTES, np.uint8)
    store = None
    if everyone.rank() == 0:
        host = "127.0.0.1" if everyone.local_size() == everyone.size() else socket.gethostname()
        store = distributed.TCPStore(host, 0, everyone.size(), True, timeout, wait_for_workers=False)
        text = f"{store.port} {host}".encode()
        address[: len(text)] = np.frombuffer(text, np.uint8)
    ops.broadcast(address, 0, group=everyone, out=address)
    if store is None:
        port, _, host = bytes(address).rstrip(b"\0").decode().partition(" ")
        store = distributed.TCPStore(host, int(port), everyone.size(), False, timeout, wait_for_workers=False)
    return store


def group_of(rank: int, size: int, ranks: list[int]) -> world.Group:
    """A group of its own for ``ranks`` of the default group; for the default group itself, of all ranks."""
    everyone = world.init()
    if ranks:
        return everyone.group(ranks)
    if (rank, size) != (everyone.rank(), everyone.size()):
        raise ValueError(_wrong_world(rank, size, everyone))
    return everyone.split(0)


def _wrong_world(rank: int, size: int, everyone: world.Group) -> str:
    if distributed.is_torchelastic_launched():
        return (
            f"[init_process_group] torchrun has started rank {rank} of {size}, but its processes are not ranks of MPI: "
            f"start them with mlxdist launch -n {size} train.py, or with mpirun"
        )
    return (
        f"[init_process_group] rank {rank} of {size} was passed, or is in {config.RANK.name} and "
        f"{config.WORLD_SIZE.name}, but this is rank {everyone.rank()} of {everyone.size()} of MPI: leave them out, "
        "and start the ranks with mlxdist launch or mpirun"
    )
