"""``jax.distributed.initialize()`` from the world: address, number and ids of the processes, and our MPI for XLA."""

from __future__ import annotations

import functools
import importlib
import inspect
import socket
from collections.abc import Callable
from typing import Any

import numpy as np

from mlxdist import config, ops, world
from mlxdist.jax import backend, cliques

_ADDRESS, _NUMBERS = "coordinator_address", ("num_processes", "process_id")
_NAME_NBYTES = 256  # more than a host name has
_native: Callable[..., None] | None = None


def replace_initialize() -> None:
    """Give ``jax.distributed.initialize`` the world's defaults."""
    global _native
    jax = importlib.import_module("jax")
    if _native is None:
        _native = jax.distributed.initialize
        jax.distributed.initialize = functools.wraps(_native)(_initialize)


def initialize(**options: Any) -> None:
    """Start JAX on all ranks: ``jax.distributed.initialize()``, with mlxdist for what its CPU devices communicate.

    Call it before anything that computes or asks for devices. Each rank becomes one of JAX's processes, with its rank
    as ``process_id``; rank 0 runs JAX's coordinator. Collectives of ``jit``, ``shard_map`` and the like then wait for
    other ranks as those of mlxdist do: with its timeout, and an exception with its text if a rank has died or makes
    another call.

    Args:
        options: passed on to ``jax.distributed.initialize``.

    Raises:
        Error: jaxlib was loaded before mlxdist.jax.
        LoadError: as for ``init``.

    Example:
        >>> import mlxdist.jax
        >>> import jax
        >>> mlxdist.jax.initialize()
        >>> jax.process_count() == mlxdist.init().size()
        True
    """
    world.init()
    backend.attach()
    replace_initialize()
    importlib.import_module("jax").distributed.initialize(**options)


def _initialize(*args: Any, **options: Any) -> None:
    """What a program that knows nothing of mlxdist calls. JAX's processes are ours if they have the same numbers."""
    assert _native is not None
    given = inspect.signature(_native).bind(*args, **options).arguments
    group = world.init()
    has_address = given.get(_ADDRESS) is not None or bool(config.JAX_COORDINATOR.get())
    if all(given.get(name) is None for name in _NUMBERS) and (group.size() > 1 or not has_address):
        if not has_address:
            given[_ADDRESS] = _coordinator(group)
        given |= zip(_NUMBERS, (group.size(), group.rank()), strict=True)
    is_ours = tuple(map(given.get, _NUMBERS)) == (group.size(), group.rank())
    if is_ours and group.size() > 1 and config.JAX_COLLECTIVES.get() in ("", "mpi"):
        backend.attach()
        cliques.watch_programs()
        importlib.import_module("jax").config.update("jax_cpu_collectives_implementation", "mpi")
    _native(**given)


def _coordinator(group: world.Group) -> str:
    """The address of rank 0, as the other ranks reach it, and a port that is free there."""
    own = socket.gethostname().encode()[:_NAME_NBYTES]
    names = ops.all_gather(np.frombuffer(own.ljust(_NAME_NBYTES, b"\0"), np.uint8)).reshape(-1, _NAME_NBYTES)
    hosts = [row.tobytes().rstrip(b"\0").decode() for row in names]
    with socket.socket() as free:
        free.bind(("", 0))
        port = np.array([free.getsockname()[1]], np.int32)
    address = _own_address([host for host in hosts if host != hosts[0]])
    text = f"{address}:{port[0]}".encode().ljust(_NAME_NBYTES, b"\0")
    chosen: bytes = ops.broadcast(np.frombuffer(text, np.uint8), 0).tobytes()
    return chosen.rstrip(b"\0").decode()


def _own_address(others: list[str]) -> str:
    """What this host is called by the others, which are reached from it."""
    if not others:
        return "127.0.0.1"
    for other in others:
        try:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as route:  # sends nothing
                route.connect((other, 9))
                return str(route.getsockname()[0])
        except OSError:
            continue
    return socket.gethostname()
