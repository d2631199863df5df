"""Random operations while ranks are killed, come too late and are interrupted: nobody gets a wrong value or hangs.

    python tests/faults.py openmpi-5 3 --seconds 600

One long job has a group for each round, in which one rank is late or gets a SIGINT; since groups are nested, its world
stays whole. A kill ends a job under most MPIs, so each kill has a short job of its own. A rank that gets a result
without an error must have the right one, whatever happened to the others, and nobody touches the arrays of a call that
has raised. Memory stays flat, and nothing is left in /dev/shm.

A seed draws the operations, who fails, how, and when; only the time at which a rank then is there differs. Each failure
is printed with its seed and the command that repeats it.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import mpis
import numpy as np
from conftest import run
from parallel.drawn import ON_THREADS, Draw, Part, Rank
from parallel.reference import NAMES, dtype_of
from soak import LOOKS, Held, are_level, keep_no_freed_memory, nbytes_drawn

import mlxdist as dist
from mlxdist import _core

TIMEOUT_S, RECOVERY_S, STUCK_S = 0.1, 30, 60
KILL_S = 0.5  # after so many seconds at most
MOST_OPERATIONS = 30
UNTOUCHED = -7.0


def interrupted(number: int, frame: FrameType | None) -> None:
    if Round.is_under_way:
        raise KeyboardInterrupt


@dataclass
class Round:
    """Operations on a group of its own; how it fails is drawn by all ranks."""

    rank: Rank
    random: np.random.Generator
    fault: str
    watched: list[np.ndarray] = field(default_factory=list)
    is_under_way = False

    def run(self) -> bool:
        """Whether this rank came through without an error; the fault may have come too late."""
        world = self.rank.world
        victim, when = int(self.random.integers(world.size())), float(self.random.random())
        group = world.split(0, int(self.random.integers(100)) if self.random.random() < 0.5 else world.rank())
        members = tuple(dist.all_gather(np.array([world.rank()]), group=group).tolist())
        part = Part(group, members)
        _core.set_timeout(group, TIMEOUT_S)
        is_victim = victim == world.rank()
        late_at = int(when * MOST_OPERATIONS) if is_victim and self.fault == "late" else -1
        late_s = TIMEOUT_S * (0.95 + 0.1 * float(self.random.random()))  # just when the others give up
        signals = threading.Timer(when * 0.02, os.kill, (os.getpid(), signal.SIGINT))
        Round.is_under_way = True
        try:
            if is_victim and self.fault == "interrupted":
                signals.start()
            for i in range(MOST_OPERATIONS):
                if i == late_at:
                    time.sleep(late_s)
                self.operate(part)
            failed = False
        except (dist.TimeoutError, dist.PeerError, KeyboardInterrupt):
            failed = True
        finally:
            Round.is_under_way = False
        if signals.ident:
            signals.join()
        if failed:
            for x in self.watched:
                x[...] = UNTOUCHED
        dist.barrier()
        assert not failed or all((x == UNTOUCHED).all() for x in self.watched), "an array was written after the error"
        return not failed

    def operate(self, part: Part) -> None:
        run = OPERATIONS[self.random.integers(len(OPERATIONS))]
        name = NAMES[self.random.integers(len(NAMES))]
        count = nbytes_drawn(self.random) // dtype_of(name).itemsize
        draw = Draw(name, count, *(int(self.random.integers(n)) for n in (2**30, 3, 2**30)))
        if run is in_place:
            shape = (1 << draw.root % 18,)
            is_shared = draw.number % 2
            x = dist.empty(shape, np.float64, group=part.group) if is_shared else np.empty(shape)
            self.watched[:] = [x]
            in_place(part, x)
        else:
            run(self.rank, part, draw)


def in_place(part: Part, x: np.ndarray) -> None:
    """In memory of which the caller can see whether it is touched later on."""
    x[...] = part.members[part.group.rank()] + 1
    dist.all_sum(x, group=part.group, out=x)
    assert (x == sum(part.members) + len(part.members)).all(), "a sum without all ranks"


OPERATIONS: tuple[Callable[..., object], ...] = (*ON_THREADS, in_place, in_place)


def rounds(rank: Rank, seconds: float) -> int:
    """Of the long job; MPI is not finalized after a fault, so its launcher may report a status of its own."""
    held: list[Held] = []
    began, count, whole = time.monotonic(), 0, 0
    while len(held) < len(LOOKS):
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        if float(dist.broadcast(time.monotonic() - began, 0)) > LOOKS[len(held)] * seconds:
            held.append(Held.now(rank))
        random = np.random.default_rng((rank.seed, count))
        whole += Round(rank, random, ("late", "interrupted", "interrupted", "none")[count % 4]).run()
        count += 1
    is_level = bool(dist.all_min(are_level(held)))
    if rank.world.rank() == 0:
        print(f"faults: {count} rounds, {whole} without an error; {held}: {'level' if is_level else 'NOT LEVEL'}")
    return not is_level


def killed(rank: Rank) -> int:
    """Of a short job: one rank is killed, and the others notice."""
    random = np.random.default_rng(rank.seed)
    victim, when = int(random.integers(rank.world.size())), float(random.random())
    if victim == rank.world.rank():
        threading.Timer(when * KILL_S, os.kill, (os.getpid(), signal.SIGKILL)).start()
    faulthandler.dump_traceback_later(STUCK_S, exit=True)
    try:
        while True:
            Round(rank, random, "none").run()
    except dist.PeerError:
        return 0


def as_rank(job: str, seconds: float, seed: int) -> int:
    keep_no_freed_memory()
    world = dist.init(timeout_s=RECOVERY_S)
    signal.signal(signal.SIGINT, interrupted)
    print(f"pid {os.getpid():x}\n", end="", flush=True)
    rank = Rank(world, seed, in_slots=_core.local_size()[0] == world.size())
    try:
        return killed(rank) if job == "killed" else rounds(rank, seconds)
    except BaseException as error:
        print(f"WRONG on rank {world.rank()}, seed {seed}: {type(error).__name__}: {error}\n", end="", flush=True)
        raise


def failure(mpi: mpis.MPI, size: int, job: str, seconds: float, seed: int) -> str:
    """Run a job: "" if it was as it must be, else what was wrong."""
    options = ("--job", job, "--seconds", str(seconds), "--seed", str(seed))
    command = mpi.command(size, sys.executable, __file__, mpi.name, str(size), *options)
    finished = run(command, timeout_s=seconds + 2 * STUCK_S, **mpi.environment())
    pids = re.findall(r"pid (\w+)", finished.output)
    left = [path.name for pid in pids for path in Path("/dev/shm").glob(f"mlxdist.{pid}.*")]
    wrong = (
        "WRONG" in finished
        or "Traceback" in finished
        or "Timeout (" in finished
        or len(pids) != size
        or (job == "rounds" and ": level" not in finished)
        or left
        or finished.left
    )
    return f"seed {seed}: {' '.join(command)}\nleft: {left}, {finished.left}\n{finished.output}" if wrong else ""


def failures(mpi: mpis.MPI, size: int, seconds: float, seed: int) -> list[str]:
    """Half of the time for the long job, half of it for kills."""
    found = [failure(mpi, size, "rounds", seconds / 2, seed)]
    end = time.monotonic() + seconds / 2
    while time.monotonic() < end:
        seed += 1
        found.append(failure(mpi, size, "killed", 0, seed))
    print(f"faults: {mpi.name}, {size} ranks, last seed {seed}: {len(found)} jobs, {sum(map(bool, found))} wrong")
    return [each for each in found if each]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("mpi")
    parser.add_argument("size", type=int)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--job", choices=("rounds", "killed"), help="be a rank of such a job")
    asked = parser.parse_args()
    if asked.job:
        return as_rank(asked.job, asked.seconds, asked.seed)
    (mpi,) = mpis.chosen(asked.mpi)
    found = failures(mpi, asked.size, asked.seconds, asked.seed)
    print(*found, sep="\n")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
