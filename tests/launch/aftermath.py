"""Ranks that raise at random instants of a call and use their arrays again at once.

aftermath.py INSTANTS SEED REST_S: one rank after the other gives up a call, in a group of its own each time.
aftermath.py deaths SEED REST_S: with n ranks, the last of the first k is killed in a call, for k = n ... 2.
REST_S: how long to wait before all arrays are looked at once more.

Whoever raises fills its arrays with a pattern, which must stay. Whoever does not has all ranks' values. Each rank that
ends well prints what became of its calls, `rank R: I instants, J raised`.
"""

from __future__ import annotations

import collections
import functools
import importlib.util
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist import _core

Call = Callable[[], Any]
Use = tuple[list[np.ndarray], Call, np.ndarray]  # the caller's arrays, the input first; the call; its result

LATE_S, LIMIT_S, STOPPED_S = 0.02, 0.002, 0.03
OTHERS_LIMIT_S = 3.0  # an interrupt may come just before the call, and then nothing tells the others
LONGEST = 4 << 20
PATTERN = -7.0
KEPT = 20  # arrays whose pattern is checked once more at the end


def values(count: int, rank: int) -> np.ndarray:
    return (np.arange(count) % 61 + 64 * (rank + 1)).astype(np.float32)


def total(count: int, group: dist.Group) -> np.ndarray:
    return sum(values(count, rank) for rank in range(group.size()))


def arrays(count: int, group: dist.Group, shared: bool = False, of: int = 2) -> list[np.ndarray]:
    """The input, and others of this length."""
    made = [dist.empty(count, np.float32, group=group) if shared else np.empty(count, np.float32) for _ in range(of)]
    for array in made:
        array[:] = values(count, group.rank())
    return made


def summed(count: int, group: dist.Group, shared: bool = False) -> Use:
    x, out = arrays(count, group, shared)
    return [x, out], lambda: dist.all_sum(x, group=group, out=out), total(count, group)


def summed_in_place(count: int, group: dist.Group, shared: bool = False) -> Use:
    (x,) = arrays(count, group, shared, 1)
    return [x], lambda: dist.all_sum(x, group=group, out=x), total(count, group)


def summed_in_slices(count: int, group: dist.Group) -> Use:
    """Of one array; the two may share a page."""
    (both,) = arrays(2 * count, group, True, 1)
    x, out = both[:count], both[count:]
    x[:] = values(count, group.rank())
    return [x, out], lambda: dist.all_sum(x, group=group, out=out), total(count, group)


def summed_to_new(count: int, group: dist.Group) -> Use:
    (x,) = arrays(count, group, False, 1)
    return [x], lambda: dist.all_sum(x, group=group), total(count, group)


def gathered(count: int, group: dist.Group) -> Use:
    (x,) = arrays(count, group, False, 1)
    out = np.zeros(count * group.size(), np.float32)
    everyone = np.concatenate([values(count, rank) for rank in range(group.size())])
    return [x, out], lambda: dist.all_gather(x, group=group, out=out), everyone


def scattered(count: int, group: dist.Group) -> Use:
    part = count // group.size()
    (x,) = arrays(part * group.size(), group, False, 1)
    out, mine = np.zeros(part, np.float32), slice(part * group.rank(), part * (group.rank() + 1))
    return [x, out], lambda: dist.sum_scatter(x, group=group, out=out), total(part * group.size(), group)[mine]


def broadcast(count: int, group: dist.Group) -> Use:
    x, out = arrays(count, group)
    return [x, out], lambda: dist.broadcast(x, 0, group=group, out=out), values(count, 0)


def exchanged(count: int, group: dist.Group) -> Use:
    part = count // group.size()
    x, out = arrays(part * group.size(), group)
    mine = slice(part * group.rank(), part * (group.rank() + 1))
    everyone = np.concatenate([values(part * group.size(), rank)[mine] for rank in range(group.size())])
    return [x, out], lambda: dist.all_to_all(x, group=group, out=out), everyone


def averaged(count: int, group: dist.Group) -> Use:
    x, *others = arrays(count // 4 + 1, group, False, 4)
    mean = np.tile(total(x.size, group) / np.float32(group.size()), 4)
    return [x], lambda: np.concatenate(dist.average_gradients([x, *others], group=group)), mean


def summed_by_torch(count: int, group: dist.Group) -> Use:
    import torch

    (x,) = arrays(count, group, False, 1)
    tensor = torch.from_numpy(x)
    return [x], lambda: dist.all_sum(tensor, group=group, out=tensor).numpy(), total(count, group)


def summed_by_mlx(count: int, group: dist.Group) -> Use:
    import mlx.core as mx

    (x,) = arrays(count, group, False, 1)
    array = mx.array(x)

    def evaluate() -> np.ndarray:
        result = dist.all_sum(array, group=group)
        mx.eval(result)
        return np.array(result)

    return [x], evaluate, total(count, group)


IN_SHARED_MEMORY: dict[str, Callable[[int, dist.Group], Use]] = {
    "all_sum of empty()": lambda count, group: summed(count, group, True),
    "all_sum of empty(), in place": lambda count, group: summed_in_place(count, group, True),
    "all_sum of slices of empty()": summed_in_slices,
}
ANYWHERE: dict[str, Callable[[int, dist.Group], Use]] = {
    "all_sum": summed,
    "all_sum, in place": summed_in_place,
    "all_sum, new result": summed_to_new,
    "all_gather": gathered,
    "sum_scatter": scattered,
    "broadcast": broadcast,
    "all_to_all": exchanged,
    "average_gradients": averaged,
    "all_sum, torch": summed_by_torch,
    "all_sum, MLX": summed_by_mlx,
}
WAYS = ("limit", "stop", "interrupt", "mismatch")


def operations() -> list[Callable[[int, dist.Group], Use]]:
    """Those that are possible here; half of what is drawn is in symmetric memory."""
    anywhere = [
        use
        for name, use in ANYWHERE.items()
        if name.partition(", ")[2] not in ("torch", "MLX") or importlib.util.find_spec(name.split()[-1].lower())
    ]
    if os.environ.get("MLXDIST_SHARED_MEMORY", "1") != "1":
        return anywhere
    return [*anywhere, *IN_SHARED_MEMORY.values(), *IN_SHARED_MEMORY.values(), *IN_SHARED_MEMORY.values()]


class Interrupts:
    """SIGINT raises KeyboardInterrupt only while it is expected."""

    def __init__(self) -> None:
        self.expected = False
        signal.signal(signal.SIGINT, self)

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.expected:
            self.expected = False
            raise KeyboardInterrupt


class Calls:
    """What becomes of this rank's calls."""

    def __init__(self, rest_s: float) -> None:
        self.rest_s, self.interrupts = rest_s, Interrupts()
        self.instants = self.raised = 0
        self.spoilt: collections.deque[list[np.ndarray]] = collections.deque(maxlen=KEPT)

    def make(self, use: Use, call: Call | None = None) -> bool:
        """Make the call, or ``call`` with the same arrays; whether it raised."""
        buffers, usual, right = use
        given, result = buffers[0].copy(), None
        self.instants += 1
        try:
            self.interrupts.expected = True
            result = (call or usual)()
            self.interrupts.expected = False
        except (KeyboardInterrupt, RuntimeError, dist.Error):  # RuntimeError is MLX's
            self.interrupts.expected = False
            self.raised += 1
            if len(buffers) > 1:
                assert buffers[0].tobytes() == given.tobytes(), "the input has changed"
            for buffer in buffers:
                buffer.fill(PATTERN)
            self.spoilt.append(buffers)
            return True
        assert call or np.allclose(np.asarray(result).ravel(), right, 1e-6), f"{usual.__qualname__}: wrong numbers"
        return False

    def check(self, buffers: list[np.ndarray]) -> None:
        assert all((buffer == PATTERN).all() for buffer in buffers), "an array was written after the exception"

    def end(self) -> None:
        time.sleep(self.rest_s)
        for buffers in self.spoilt:
            self.check(buffers)
        print(f"rank {dist.init().rank()}: {self.instants} instants, {self.raised} raised\n", end="", flush=True)
        os._exit(0)  # after such errors MPI would wait for a missing rank


def stop_and_continue(pid: int, delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(pid, signal.SIGSTOP)
    time.sleep(STOPPED_S)
    os.kill(pid, signal.SIGCONT)


def kill(number: int, delay_s: float) -> None:
    time.sleep(delay_s)
    os.kill(os.getpid(), number)


def drawn(random: np.random.Generator, group: dist.Group) -> tuple[Use, float]:
    """A call, and when to disturb it: anything between a moment and ten milliseconds."""
    choice = operations()
    use = choice[random.integers(len(choice))](int(LONGEST / 4 * 10 ** random.uniform(-3, 0)), group)
    return use, 10 ** random.uniform(-4.5, -2)


def give_up(calls: Calls, random: np.random.Generator, pids: list[int]) -> None:
    """One instant: ``random`` draws the same on all ranks."""
    world = dist.init()
    group = world.split(0)
    use, delay_s = drawn(random, group)
    way, late_s = WAYS[random.integers(len(WAYS))], LATE_S * random.random()
    rank, other = random.permutation(world.size())[:2]
    thread: threading.Thread | None = None
    call: Call | None = None
    _core.set_timeout(group, LIMIT_S if world.rank() == rank and way in ("limit", "stop") else OTHERS_LIMIT_S)
    if world.rank() == rank:
        if way == "stop":
            thread = threading.Thread(target=stop_and_continue, args=(pids[other], delay_s))
        elif way == "interrupt":
            thread = threading.Thread(target=kill, args=(signal.SIGINT, delay_s))
        elif way == "mismatch":
            call = functools.partial(dist.barrier, group=group)
    dist.barrier()
    if thread:
        thread.start()
    if world.rank() == other and way in ("limit", "interrupt"):
        time.sleep(late_s)
    raised = calls.make(use, call)
    assert raised or way != "mismatch", "a mismatch was not noticed"
    if thread:
        thread.join()
    dist.barrier()  # all have left their calls
    if raised:
        calls.check(use[0])


def die(calls: Calls, random: np.random.Generator) -> None:
    world = dist.init()
    groups = {k: [world.split(int(world.rank() < n)) for n in (k, k - 1)] for k in range(world.size(), 1, -1)}
    for k, (group, survivors) in groups.items():
        use, delay_s = drawn(random, group) if world.rank() < k else (None, 0)
        if use is None:
            break
        dist.barrier(group=group)
        if world.rank() == k - 1:
            threading.Thread(target=kill, args=(signal.SIGKILL, delay_s)).start()
            calls.make(use)
            time.sleep(60)
        raised = calls.make(use)
        dist.barrier(group=survivors)
        if raised:
            calls.check(use[0])


def main(what: str, seed: str, rest_s: str) -> None:
    dist.init(timeout_s=60)
    calls, random = Calls(float(rest_s)), np.random.default_rng(int(seed))
    pids = dist.all_gather(np.array([os.getpid()])).tolist()
    if what == "deaths":
        die(calls, random)
    else:
        for _ in range(int(what)):
            give_up(calls, random, pids)
    calls.end()


if __name__ == "__main__":
    main(*sys.argv[1:])
