"""A message by MPI that is given up: nothing of the caller's is written to or read afterwards, and the peer is told."""

from __future__ import annotations

import mpis
import pytest
from conftest import Ranks

BEGIN = """
import os, pathlib, signal, sys, time
import numpy as np
import mlxdist as dist

world = dist.init(timeout_s=1)
rank = world.rank()
pair = world.split(0)  # with this timeout
dist.init(timeout_s=0)
pids = dist.all_gather(np.array([os.getpid()]))
n = int(sys.argv[1])

def say(text):
    print(text + "\\n", end="", flush=True)
"""

# Rank 0 stops rank 1 in the middle of its send, and lets it go on when its own receive has been given up.
RECEIVE = (
    BEGIN
    + """
if rank:
    dist._core.set_timeout(pair, 0)
    dist.barrier()
    try:
        dist.send(np.full(n, 7, np.int32), 0, group=pair)
        say("rank 1: sent")  # to Intel MPI's own buffers (2021.18)
    except dist.PeerError as error:
        say(f"rank 1: {error}")
else:
    out = np.zeros(n, np.int32)
    dist.barrier()
    time.sleep(0.3)
    os.kill(pids[1], signal.SIGSTOP)
    try:
        dist.recv_like(out, 1, group=pair, out=out)
    except dist.TimeoutError as error:
        say(f"rank 0: {error}")
    out[:] = 42
    os.kill(pids[1], signal.SIGCONT)
dist.barrier()
if not rank:
    time.sleep(0.2)
    say(f"untouched: {(out == 42).all()}")
dist.barrier()
"""
)


def test_receiver(representative: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(representative, 2, RECEIVE, str(1 << 22), timeout_s=40, MLXDIST_SHARED_MEMORY="0")
    assert "rank 0: [recv_like] waited for 1 s in recv_like int32" in finished, finished.output
    told = "rank 1: [send] rank 0 has given up a message with this rank on this group: see its own error" in finished
    assert told or (representative.name == "intel-12" and "rank 1: sent" in finished), finished.output
    assert "untouched: True" in finished, finished.output


# Rank 0 gives up its send, and overwrites what it sent before rank 1 looks for it.
SEND = (
    BEGIN
    + """
dist._core.set_timeout(pair, 1 if rank == 0 else 0)
overwritten = pathlib.Path(sys.argv[2])
if rank == 0:
    x = np.full(n, 7, np.int32)
    try:
        dist.send(x, 1, group=pair)
    except dist.TimeoutError as error:
        say(f"rank 0: {error}")
    x[:] = 1
    overwritten.touch()
else:
    while not overwritten.exists():
        time.sleep(0.01)  # outside of MPI, so that nothing is received before
    try:
        say(f"as sent: {(dist.recv(n, np.int32, 0, group=pair) == 7).all()}")
    except dist.PeerError as error:
        say(f"rank 1: {error}")
dist.barrier()
"""
)


@pytest.mark.parametrize("n", [50_000, 1 << 22], ids=["one piece", "many pieces"])
def test_sender(representative: mpis.MPI, ranks: Ranks, tmp_path: str, n: int) -> None:
    arguments = (str(n), f"{tmp_path}/overwritten")
    finished = ranks(representative, 2, SEND, *arguments, timeout_s=40, MLXDIST_SHARED_MEMORY="0")
    assert "as sent: False" not in finished, finished.output
    told = "rank 1: [recv] rank 0 has given up a message with this rank on this group: see its own error" in finished
    if n > 50_000:
        assert "rank 0: [send] waited for 1 s in send int32" in finished, finished.output
        assert told, finished.output
    else:  # whole in MPI's hands
        assert told or "as sent: True" in finished, finished.output


CIRCLE = """
import numpy as np
import mlxdist as dist

world = dist.init(timeout_s=1)
rank, size = world.rank(), world.size()
x = np.ones(500_000)
try:
    dist.send(x, (rank + 1) % size)
    print("sent\\n", end="", flush=True)  # to Intel MPI's own buffers (2021.18)
except (dist.TimeoutError, dist.PeerError) as error:
    print(f"{error}\\n", end="", flush=True)
"""


@pytest.mark.parametrize(
    ("many", "shared", "text"),
    [
        (2, "1", "ranks {} and {} both send, and neither receives: use sendrecv()"),
        (3, "1", "ranks {}, {} and {} all send, and none receives: use sendrecv()"),
        (2, "0", "has not received; if that rank sends to this one, too, use sendrecv()"),
    ],
)
def test_everyone_sends_first(one: mpis.MPI, ranks: Ranks, many: int, shared: str, text: str) -> None:
    """The one whose timeout passes first says so."""
    finished = ranks(one, many, CIRCLE, timeout_s=40, MLXDIST_SHARED_MEMORY=shared)
    texts = {text.format(*((first + i) % many for i in range(many))) for first in range(many)}
    is_buffered = one.name == "intel-12" and shared == "0" and finished.output.count("sent\n") == many
    assert is_buffered or any(text in finished for text in texts), finished.output
