"""The start: rank and world size come from MPI, and so does what torch.distributed asks the environment for."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import numpy as np
from torch import distributed
from torch.distributed.constants import default_pg_timeout
from torch.distributed.rendezvous import _rendezvous_handlers

from mlxdist import _core, ops, world

HOST_NBYTES = 256
_of_environment = _rendezvous_handlers["env"]


def group_of(rank: int, size: int, ranks: list[int]) -> world.Group:
    """A group for ``ranks`` of the default group; for an empty list, of the whole world."""
    everyone = world.init()
    if not ranks:
        _check(rank, size, everyone)
        return everyone.split(0)
    if not hasattr(everyone, 'group') and len(ranks) == everyone.size():
        return everyone.split(0)  # INTERIM
    return everyone.group(ranks)


def _check(rank: int, size: int, everyone: world.Group) -> None:
    if (rank, size) == (everyone.rank(), everyone.size()):
        return
    started = "torchrun's ranks are no ranks of MPI" if distributed.is_torchelastic_launched() else "MPI knows better"
    raise ValueError(
        f"[init_process_group] this is rank {rank} of {size}, by its arguments or environment, but rank "
        f"{everyone.rank()} of {everyone.size()} of the MPI world ({started}): start the ranks with "
        f"mlxdist launch -n {size} train.py or with mpirun, and leave rank and world_size out"
    )


def register() -> None:
    """Let ``init_process_group`` without rank, size or address find them."""
    _rendezvous_handlers["env"] = _handler


def _handler(url: str, timeout: timedelta = default_pg_timeout, **kwargs: Any) -> Iterator[Any]:
    if os.environ.get("MASTER_ADDR") and os.environ.get("MASTER_PORT") and os.environ.get("RANK"):
        return _of_environment(url, timeout=timeout, **kwargs)
    return _of_mpi(url, timeout)


def _of_mpi(url: str, timeout: timedelta) -> Iterator[Any]:
    everyone = world.init()
    yield _store(everyone, timeout), everyone.rank(), everyone.size()


def _store(everyone: world.Group, timeout: timedelta) -> Any:
    if everyone.size() == 1:
        return distributed.HashStore()
    address = np.zeros(HOST_NBYTES, np.uint8)
    store = None
    if everyone.rank() == 0:
        host = "127.0.0.1" if _core.local_size()[0] == everyone.size() else socket.gethostname()
        store = distributed.TCPStore(host, 0, everyone.size(), True, timeout, wait_for_workers=False)
        text = f"{store.port} {host}".encode()
        address[: len(text)] = np.frombuffer(text, np.uint8)
    ops.broadcast(address, 0, group=everyone, out=address)
    if store is None:
        port, _, host = bytes(address).rstrip(b"\0").decode().partition(" ")
        store = distributed.TCPStore(host, int(port), everyone.size(), False, timeout, wait_for_workers=False)
    return store
