"""Programs that JAX has compiled: timeouts, Ctrl-C, ranks that die, and the end come out of them as of other calls."""

from __future__ import annotations

import importlib.util
import re
import sys

import mpis
import pytest
from conftest import Ranks, run

PROGRAM = """
import os, signal, threading, time
import numpy as np
import jax
import jax.numpy as jnp
import mlxdist as dist

world = dist.init(timeout_s=0.5)
limited = world.split(0)
dist.init(timeout_s=0)
groups = [world.split(0) for _ in range(2)]
other = 1 - world.rank()
LENGTHS = {"short": 3, "long": 1_000_000}  # JAX runs it in the call, or behind it


def compiled(group, length):
    # What Ctrl-C ends is not its compilation.
    x = jnp.ones(length)
    program = jax.jit(lambda x: dist.all_sum(jnp.sin(x), group=group)).lower(x).compile()
    return lambda: program(x).block_until_ready()


if world.rank() == 1:
    dist.recv((), np.int64, 0)
    behind = jax.jit(lambda x: dist.sendrecv(jnp.sin(x), 0, 0)[0])(jnp.ones(1_000_000))  # JAX goes on
    dist.send(np.zeros(2), 0)
    dist.recv((), np.int64, 0)
    os._exit(7)

try:
    compiled(limited, 3)()
except RuntimeError as error:
    print("limited |", error)
for group, (name, length) in zip(groups, LENGTHS.items()):
    call = compiled(group, length)
    threading.Timer(1.5, os.kill, (os.getpid(), signal.SIGINT)).start()
    try:
        try:
            call()
        except RuntimeError:
            time.sleep(10)  # what Python's handler raised comes out of it
    except KeyboardInterrupt:
        print(name, "| interrupted")
    try:
        call()
    except RuntimeError as error:
        print(name, "|", error)
dist.send(0, 1)
behind = jax.jit(lambda x: dist.sendrecv(jnp.sin(x), 1, 1)[0])(jnp.ones(1_000_000))
print("in order |", dist.recv(2, np.float64, 1).tolist(), f"{float(behind):.3f}")
dist.send(0, 1)
for length in LENGTHS.values():
    try:
        compiled(world, length)()
    except RuntimeError as error:
        print("died |", error)
try:
    jax.jit(lambda x: dist.all_sum(jnp.sin(x)))(jnp.ones(1_000_000))  # nobody waits for it
except RuntimeError:
    pass  # it failed sooner than JAX returned
print("end |")
"""
# What keeps the launcher from ending the job as soon as a rank dies.
KEEPING = ("-disable-auto-cleanup",)


@pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")
def test_failures(ranks: Ranks, two: mpis.MPI) -> None:
    if two != mpis.TWO[-1]:
        pytest.skip("one will do: nothing of it depends on the MPI")
    path = ranks.folder / "program.py"
    path.write_text(PROGRAM)
    launcher, *rest = two.command(2, sys.executable, str(path))
    finished = run([launcher, *KEEPING, *rest], timeout_s=100, **two.environment(), MLXDIST_ABORT="0")
    said = finished.output.splitlines()
    text = r"all_sum float32 \({}\), call 1 of rank 0 on this group: rank 1 \(pid \d+\) has not reached this call"
    died = r"rank 1 \(pid \d+ on [\w.-]+\) has died: .*"
    broken = "FAILED_PRECONDITION: \\[all_sum] this group was broken by an earlier error: "
    expected = (
        rf"limited \| DEADLINE_EXCEEDED: \[all_sum] waited for 0.5 s in {text.format('3,')}",
        r"short \| interrupted",
        rf"short \| {broken}interrupted in {text.format('3,')}",
        r"long \| interrupted",
        rf"long \| (CANCELLED: \[all_sum] |{broken})interrupted in {text.format('1000000,')}",
        r"in order \| \[0.0, 0.0] 0.841",
        rf"died \| UNAVAILABLE: \[all_sum] {died}",
        rf"died \| UNAVAILABLE: \[all_sum] this group was broken by an earlier error: {died}",
        r"end \|",
    )
    assert len(said) == len(expected), finished.output
    for line, pattern in zip(said, expected, strict=True):
        assert re.fullmatch(pattern, line), finished.output
