"""A JAX program on two ranks, for `python -m mlxdist`, in which the ranks do not agree and rank 1 dies in the end."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

jax.distributed.initialize()
RANK = jax.process_index()


def over(collective: Any, order: list[int]) -> Any:
    """What runs it on one array, on the devices in this order."""
    mesh = Mesh(np.array(jax.devices())[order], ("x",))
    run = jax.jit(jax.shard_map(partial(collective, axis_name="x"), mesh=mesh, in_specs=P("x"), out_specs=P("x")))
    x = jax.make_array_from_callback((4, 3), NamedSharding(mesh, P("x")), lambda index: np.ones((4, 3))[index])
    return lambda: run(x).block_until_ready()


@contextlib.contextmanager
def reported(what: str) -> Iterator[None]:
    began = time.monotonic()
    try:
        yield
        print(f"{what} on rank {RANK}: no error\n", end="", flush=True)
    except Exception as error:
        text = " ".join(f"{type(error).__name__}: {error}".split())
        print(f"{what} on rank {RANK} after {time.monotonic() - began:.2f} s: {text}\n", end="", flush=True)


gather = partial(lax.all_gather, tiled=True)
gathered, scattered = (
    over(gather, [0, 1]),
    over(partial(lax.all_to_all, split_axis=0, concat_axis=0, tiled=True), [0, 1]),
)
alike = over(gather, [1, 0])
gathered(), scattered(), alike()

with reported("mismatch"):
    (gathered if RANK else over(partial(lax.psum_scatter, tiled=True), [0, 1]))()
with reported("afterwards"):
    gathered()
with reported("another group"):
    alike()
if RANK == 1:
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(0.3)
with reported("death"):
    alike()
os._exit(0)  # JAX itself would wait for rank 1 until it misses its heartbeat, 100 s
