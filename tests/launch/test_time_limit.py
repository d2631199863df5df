"""A rank that waits longer than the timeout is told for whom; one that waits for 10 s says so."""

from __future__ import annotations

import importlib.util
import platform
import re
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import mpis
import pytest
from conftest import Ranks, run

# Rank 0 calls, the others do not. name: the call, and what the error says of it with and without shared memory
CALLS = {
    "all_sum": ("dist.all_sum(np.ones((4, 2), 'f4'), group=group)", "all_sum float32 (4, 2), call 2 of rank 0"),
    "large": ("dist.all_max(np.ones(99_000), group=group)", "all_max float64 (99000,), call 2 of rank 0"),
    "all_gather": ("dist.all_gather(np.ones(3, 'i2'), group=group)", "all_gather int16 (3,), call 2 of rank 0"),
    "sum_scatter": ("dist.sum_scatter(np.ones(6), group=group)", "sum_scatter float64 (6,), call 2 of rank 0"),
    "broadcast": ("dist.broadcast(np.ones(6), 1, group=group)", "broadcast float64 (6,) from rank 1, call 2 of rank 0"),
    "all_to_all": ("dist.all_to_all(np.ones(6), group=group)", "all_to_all float64 (6,), call 2 of rank 0"),
    "reduce": (
        "dist.reduce(np.ones(6), 1, op='max', group=group)",
        "reduce max float64 (6,) to rank 1, call 2 of rank 0",
    ),
    "barrier": ("dist.barrier(group=group)", "barrier, call 2 of rank 0"),
    "split": ("group.split(0)", "split, call 2 of rank 0"),
    "split again": ("group.split(0).rank()", "split, call 2 of rank 0"),
    "send": ("dist.send(np.ones(500_000), 1, group=group)", "send float64 (500000,) to rank 1"),
    "recv": ("dist.recv((2, 3), bool, 1, group=group)", "recv bool (2, 3) from rank 1"),
}

PROGRAM = (
    """
import builtins, pathlib, sys, time
import numpy as np
import mlxdist as dist

CALLS = """
    + repr({name: call for name, (call, _) in CALLS.items()})
    + """
through = pathlib.Path(sys.argv[1])
world = dist.init(timeout_s=0.3)
groups = {name: world.split(0).split(0) for name in CALLS}  # inherited twice
dist.init(timeout_s=30)
for group in groups.values():
    dist.barrier(group=group)
for name, call in CALLS.items():
    group = groups[name]
    if world.rank() == 0:
        began = time.monotonic()
        try:
            eval(call)
        except builtins.TimeoutError as error:
            assert isinstance(error, dist.TimeoutError) and isinstance(error, dist.Error)
            print(f"{name} | {error} | {time.monotonic() - began:.3f}\\n", end="", flush=True)
        began = time.monotonic()
        try:
            if name != "recv":
                dist.barrier(group=group)
                print(f"{name} goes on")
        except dist.TimeoutError as error:
            assert "this group was broken by an earlier error: waited for 0.3 s in" in str(error), error
            assert time.monotonic() - began < 0.25
if world.rank() == 0:
    through.touch()
# Out of MPI, since Intel's takes a large message off the sender while it looks for another.
while not through.exists() and world.rank():
    time.sleep(0.01)
# A message that came too late is not lost, nor is the group.
if world.rank() == 1:
    time.sleep(0.5)
    dist.send(np.ones((2, 3), bool), 0, group=groups["recv"])
if world.rank() == 0:
    while True:
        try:
            assert dist.recv((2, 3), bool, 1, group=groups["recv"]).all()
            break
        except dist.TimeoutError:
            pass
dist.barrier()
dist.init(timeout_s=5)
dist.barrier(group=groups["recv"])
print(f"rank {world.rank()} end {int(dist.all_sum(1))}\\n", end="", flush=True)
"""
)


@pytest.mark.parametrize(("many", "node"), [(2, "1"), (3, "1"), (2, "0")])
def test_every_call(representative: mpis.MPI, ranks: Ranks, tmp_path: Path, many: int, node: str) -> None:
    finished = ranks(representative, many, PROGRAM, str(tmp_path / "through"), MLXDIST_SHARED_MEMORY=node)
    others = [r"1 \(pid \d+\)", r"2 \(pid \d+\)"][: many - 1]
    for name, (_, called) in CALLS.items():
        said = [line.split(" | ") for line in finished.output.splitlines() if line.startswith(f"{name} | ")]
        assert len(said) == 1, finished.output
        _, text, seconds = said[0]
        assert 0.3 <= float(seconds) < 1.3
        assert re.match(r"\[\w+\] waited for 0.3 s in " + re.escape(called), text), text
        peer = "rank 1" if node == "1" else f"rank 1 on {platform.node()}"
        if name == "send":
            if_both = "; if that rank sends to this one, too, use sendrecv()" if node == "0" else ""
            assert text.endswith(f"{peer} has not received{if_both}"), text
        elif name == "recv":
            assert text.endswith(f"{peer} has not sent")
        elif node == "0":
            assert re.search(f"on this group of {many}: host .+ \\(rank 1\\) has not reached this call$", text), text
        else:
            has = "has" if many == 2 else "have"
            assert re.search(f"on this group: ranks? {', '.join(others)} {has} not reached this call$", text), text
    for rank in range(many):
        assert f"rank {rank} end {many}" in finished.output
    assert "goes on" not in finished


FINALIZE = """
import time
import mlxdist as dist
world = dist.init(timeout_s=0.3)
dist.barrier()
if world.rank():
    time.sleep(1)
try:
    dist.finalize()
except dist.TimeoutError as error:
    print(f"{error}\\n", end="", flush=True)
"""


def test_finalize(representative: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(representative, 2, FINALIZE, timeout_s=20)
    assert "[finalize] waited for 0.3 s in finalize: other ranks of this host have not called it" in finished.output


ENVIRONMENT = """
import numpy as np
import mlxdist as dist
if dist.init().rank():
    import time
    time.sleep(1)
dist.all_sum(np.ones(3))
"""


def test_of_the_environment_and_not_caught(representative: mpis.MPI, ranks: Ranks) -> None:
    """The job ends with the error."""
    finished = ranks(representative, 2, ENVIRONMENT, timeout_s=20, MLXDIST_TIMEOUT_S="0.4")
    assert finished.status != 0
    assert "TimeoutError: [all_sum] waited for 0.4 s in all_sum float64 (3,)" in finished
    assert finished.left == ()


VALIDATION = """
import math, sys
import mlxdist as dist
for value in (-1, math.nan, math.inf, "x", True, [], 10**400):
    try:
        dist.init(timeout_s=value)
        print("taken:", value)
    except ValueError as error:
        assert str(error) == f"[init] timeout_s={value!r} is not a timeout: pass seconds, 0 for no timeout", error
assert dist.info().backend == "not started"
world = dist.init(timeout_s=0)
assert dist.init(timeout_s=2.5) is world and dist.init(timeout_s=3) is world and dist.init() is world
"""


def test_which_limits_there_are(ranks: Ranks) -> None:
    finished = ranks(None, 1, VALIDATION)
    assert (finished.status, finished.output) == (0, "")


@pytest.mark.parametrize("value", ["x", "-1", "nan", "inf"])
def test_which_limits_the_environment_may_give(ranks: Ranks, value: str) -> None:
    finished = ranks(None, 1, "import mlxdist\nmlxdist.init()", MLXDIST_TIMEOUT_S=value)
    text = f"[init] MLXDIST_TIMEOUT_S={value!r} is not a timeout: pass seconds, 0 for no timeout"
    assert f"ValueError: {text}" in finished


MLX = """
import mlx.core as mx
import mlxdist as dist
dist.install()
group = dist.init(timeout_s=0.3).split(0)
dist.init(timeout_s=30)
if group.rank() == 0:
    try:
        mx.eval(dist.all_sum(mx.ones(5), group=group))
    except RuntimeError as error:
        print(f"RuntimeError {error}\\n", end="", flush=True)
dist.barrier()
"""


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_mlx(representative: mpis.MPI, ranks: Ranks) -> None:
    finished = ranks(representative, 2, MLX, timeout_s=20)
    assert re.search(r"RuntimeError \[all_sum\] waited for 0.3 s in all_sum float32 \(5,\), call 1 of", finished.output)


# Two ranks wait for the third.
SILENT = """
import time
import numpy as np
import mlxdist as dist
if dist.init().rank() == 2:
    time.sleep(11)
assert (dist.all_sum(np.ones(3)) == 3).all()
"""


def test_who_is_awaited_is_said_once(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    mpi = mpis.chosen(request.config.getoption("--mpi"))[0]
    path = tmp_path / "silent.py"
    path.write_text(SILENT)

    def output(quiet: str) -> str:
        finished = run(mpi.command(3, sys.executable, path), timeout_s=60, **mpi.environment(), MLXDIST_QUIET=quiet)
        assert finished.status == 0, finished.output
        return finished.output

    with ThreadPoolExecutor() as pool:
        said, silence = pool.map(output, ("0", "1"))
    lines = re.findall("^mlxdist: waiting.*$", said, re.MULTILINE)
    assert len(lines) == 1, said
    call = r"all_sum float64 \(3,\), call 1 of rank 0 on this group"
    assert re.search(rf"waiting for 10 s in {call}: rank 2 \(pid \d+\) has not reached this call", lines[0])
    assert "waiting" not in silence
