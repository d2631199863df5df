"""Random operations on random groups for minutes: every result is correct, and no resource of a rank grows.

    python tests/mpis.py run openmpi-5 4 python tests/soak.py --seconds 600

All ranks draw the same operations, with delays of their own. Memory, file descriptors and shared memory of each rank
are compared after a warm-up and at the end. The last line is a summary; the status is 0 if all of them stay flat.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import gc
import os
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from parallel.drawn import LONGEST, ON_THREADS, OPERATIONS, SLOT, Draw, Part, Rank, Run, mx
from parallel.reference import NAMES, dtype_of

import mlxdist as dist
from mlxdist import _core

STUCK_S, LIMIT_S, MOST_PARTS = 120, 60, 12
LOOKS = (0.3, 0.4, 0.5, 0.9, 1.0)  # at the resources, as fractions of the time
CACHES = 16 << 20  # bytes; NumPy's cache of short arrays holds up to 4 MiB, Intel MPI goes up and down by 18 (2021.18)
RESTING = 64 + 3  # groups: those that MLX has freed but mlx_libmpi.cpp still keeps, and the newest
PIECES = 3  # of shared memory in a group: its node, its mailbox, its staging buffer


@dataclass
class Done:
    """Counters of what has been done so far."""

    operations: int = 0
    groups: int = 0
    nbytes: int = 0

    def add(self, other: Done) -> None:
        self.operations += other.operations
        self.groups += other.groups
        self.nbytes += other.nbytes


def nbytes_drawn(random: np.random.Generator) -> int:
    """Most are small, some about fill a slot, a few are long."""
    kind = random.random()
    if kind < 0.6:
        return int(random.integers(0, 2048))
    if kind < 0.8:
        return SLOT + 16 * int(random.integers(-2, 3))
    return int(random.integers(0, LONGEST if kind > 0.97 else LONGEST // 16))


def operate(
    rank: Rank, part: Part, random: np.random.Generator, own: np.random.Generator, operations: Sequence[Run]
) -> Done:
    """``random`` draws the same on all ranks, ``own`` is for this rank only."""
    run = operations[random.integers(len(operations))]
    name = NAMES[random.integers(len(NAMES))]
    count = nbytes_drawn(random) // dtype_of(name).itemsize
    draw = Draw(name, count, int(random.integers(2**30)), int(random.integers(3)), int(random.integers(2**30)))
    if own.random() < 0.01:
        time.sleep(own.random() * 0.01)
    try:
        return Done(1, 0, run(rank, part, draw))
    except Exception as error:
        where = getattr(run, "__qualname__", run)
        raise AssertionError(f"seed {rank.seed}: {where}, {draw}, of {part.members}: {error}") from error


def divide(rank: Rank, part: Part, random: np.random.Generator) -> Part:
    """A split of a split; every rank splits the group that it is in."""
    me, size = rank.world.rank(), rank.world.size()
    colors, keys = random.integers(0, random.integers(1, 4), size), random.permutation(size)
    group = part.group.split(int(colors[me]), int(keys[me]))
    members = sorted((other for other in part.members if colors[other] == colors[me]), key=lambda other: keys[other])
    assert (group.size(), group.rank()) == (len(members), members.index(me))
    return Part(group, tuple(members))


def on_threads(rank: Rank, whole: Part, random: np.random.Generator, n_threads: int = 3) -> Done:
    """Each with its own group."""
    failures: list[BaseException] = []
    done: list[Done] = []

    def run(part: Part, seed: int) -> None:
        mine, same = np.random.default_rng((seed, rank.world.rank())), np.random.default_rng(seed)
        try:
            for _ in range(20):
                done.append(operate(rank, part, same, mine, ON_THREADS))
        except BaseException as error:
            failures.append(error)
            raise

    parts = [Part(whole.group.split(0), whole.members) for _ in range(n_threads)]
    threads = [threading.Thread(target=run, args=(part, int(random.integers(2**30)))) for part in parts]
    for thread in threads:
        thread.start()
    for thread in threads:
        while thread.is_alive() and not failures:
            thread.join(0.01)
    if failures:
        raise failures[0]
    total = Done(groups=n_threads)
    for each in done:
        total.add(each)
    return total


def keep_no_freed_memory() -> None:
    """With glibc: allocate long arrays separately and return free memory to the system, or it would hide leaks."""
    mmap_threshold, arena_max = -3, -8
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL("libc.so.6")
        libc.mallopt(mmap_threshold, 32768)
        libc.mallopt(arena_max, 1)
        libc.malloc_trim(0)


@dataclass(frozen=True)
class Held:
    """The resources of a rank: bytes of private memory, open files, our mapped and named shared memory.

    The shared memory of libmpi itself is not counted: more and more of its pages are touched by chance, up to all.
    """

    memory: int
    files: int
    mapped: int
    named: int

    @staticmethod
    def now(rank: Rank) -> Held:
        """Measured after all groups except the world have been freed."""
        gc.collect()
        if mx is not None:
            mx.clear_cache()
        keep_no_freed_memory()
        for _ in range(2):  # each frees the groups that were dropped before
            rank.world.split(0)
        dist.barrier()
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        maps = Path("/proc/self/maps").read_text().splitlines()
        return Held(
            1024 * int(status["RssAnon"].split()[0]),
            len(os.listdir("/proc/self/fd")),
            sum("/dev/shm/#" in line for line in maps),
            len(list(Path("/dev/shm").glob(f"mlxdist.{os.getpid():x}.*"))),
        )


def are_level(held: list[Held]) -> bool:
    """Whether the last measurements are no larger than the first, except for caches that fill gradually."""
    first, last = held[:3], held[3:]
    return (
        min(state.memory for state in last) <= max(state.memory for state in first) + CACHES
        and last[-1].files <= max(state.files for state in first)
        and last[-1].mapped <= PIECES * RESTING
        and last[-1].named == 0
    )


def soak(rank: Rank, seconds: float) -> tuple[Done, list[Held]]:
    """Until the time is over by rank 0's clock."""
    whole = Part(rank.world, tuple(range(rank.world.size())))
    random, own = np.random.default_rng(rank.seed), np.random.default_rng((rank.seed, rank.world.rank()))
    parts, done, began = [whole], Done(), time.monotonic()
    let_go: list[Part] = []
    held: list[Held] = []
    while len(held) < len(LOOKS):
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        if float(dist.broadcast(time.monotonic() - began, 0)) > LOOKS[len(held)] * seconds:
            parts, let_go = [whole], []
            held.append(Held.now(rank))
        for _ in range(50):
            if random.random() < 0.1:
                parts.append(divide(rank, parts[random.integers(len(parts))], random))
                done.groups += 1
            if len(parts) > MOST_PARTS or (len(parts) > 1 and random.random() < 0.08):
                let_go.append(parts.pop(random.integers(1, len(parts))))
            if own.random() < 0.1:  # each rank at a different time
                let_go.clear()
            done.add(operate(rank, parts[random.integers(len(parts))], random, own, OPERATIONS))
        if random.random() < 0.1 and _core.threads() == "MPI_THREAD_MULTIPLE":
            done.add(on_threads(rank, whole, random))
    return done, held


def summary(rank: Rank, done: Done, held: list[Held], seconds: float) -> tuple[str, bool]:
    """One line for all ranks: the maximum of each number at each measurement."""
    is_level = bool(dist.all_min(are_level(held)))
    most = dist.all_max(np.array([[state.memory, state.files, state.mapped, state.named] for state in held]))
    memory, files, mapped, named = (" ".join(map(str, row)) for row in (most // [2**20, 1, 1, 1]).T.tolist())
    library, slots = dist.info().version.split(",")[0], "" if rank.in_slots else "no "
    line = (
        f"soak: {' '.join(library.split())}, {rank.world.size()} ranks, {slots}slots, seed {rank.seed}: "
        f"{done.operations} operations, {done.groups} groups, {done.nbytes / 1e9:.2f} GB a rank, {seconds:.0f} s; "
        f"MiB {memory}, files {files}, mapped {mapped}, named {named}: {'level' if is_level else 'NOT LEVEL'}"
    )
    return line, is_level


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=0, help="0: another each time")
    asked = parser.parse_args()
    began = time.monotonic()
    keep_no_freed_memory()
    os.environ.setdefault("UCX_MEM_EVENTS", "n")  # UCX in MPICH 5.0.2 loses 152 bytes at every munmap of the process
    world = dist.init(timeout_s=LIMIT_S)
    seed = int(dist.broadcast(asked.seed or int(time.time()), 0))
    rank = Rank(world, seed, in_slots=_core.local_size()[0] == world.size())
    line, is_level = summary(rank, *soak(rank, asked.seconds), time.monotonic() - began)
    if world.rank() == 0:
        print(line, flush=True)
    faulthandler.cancel_dump_traceback_later()
    return 0 if is_level else 1


if __name__ == "__main__":
    sys.exit(main())
