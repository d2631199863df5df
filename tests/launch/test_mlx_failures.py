"""What is made from an operation of MLX that failed reaches no other rank without an error."""

from __future__ import annotations

import importlib.util

import mpis
import pytest
from conftest import Ranks

pytestmark = pytest.mark.skipif(not importlib.util.find_spec("mlx"), reason="MLX is not installed")

BEGIN = """
import os, time
import numpy as np
import mlx.core as mx
import mlxdist as dist
dist.install()
world = dist.init()

def unreceived(group, dtype):
    '''On rank 1 an array whose message, from rank 0, is too short. That does not break the group.'''
    if group.rank() == 0:
        time.sleep(0.2)  # until MLX has queued what is behind the receive
        mx.eval(dist.send(mx.ones(3, dtype=dtype), 1, group=group))
    return dist.recv((4,), dtype, 0, group=group) if group.rank() == 1 else mx.ones(4, dtype=dtype)

def error_of(call):
    try:
        return f"no error: {call()}"
    except Exception as error:
        return f"{type(error).__name__}: {error}".partition("\\n")[0]

def say(*words):
    print(world.rank(), *words, flush=True)
"""
END = """
dist.barrier()
say("at the end")
dist.barrier()
os._exit(0)
"""

# MLX 0.32.4 evaluates an array again if its operation failed while MLX was still queueing others.
RESULTS = """
for dtype, expected in ((mx.float32, np.nan), (mx.float16, np.nan), (mx.int32, -1), (mx.uint8, 255), (mx.bool_, True)):
    array = unreceived(world.split(0), dtype)
    if world.rank() == 1:
        assert "rank 1 expected" in error_of(lambda: mx.eval(array))
        error = error_of(lambda: np.array(array))
        if "an earlier operation of MLX failed" not in error:
            np.testing.assert_array_equal(np.array(array), np.full(4, expected))
gathered = dist.all_gather(mx.ones(2 + world.rank()), group=world.split(0))
assert "the ranks differ" in error_of(lambda: mx.eval(gathered))
error = error_of(lambda: np.array(gathered))
if "earlier" not in error:
    np.testing.assert_array_equal(np.array(gathered), np.full(2 * (2 + world.rank()), np.nan))
"""

BEHIND = """
later = world.split(0)
compiled = mx.compile(lambda x: mx.distributed.all_sum(x, group=later))
compiled(mx.ones(4))
for way in ("same group", "other group"):
    group = world.split(0)
    other = group if way == "same group" else world.split(0)
    total = dist.all_sum(unreceived(group, mx.int32) * 2, group=other)
    say(way, "|", error_of(lambda: mx.eval(total)))
    say(way, "again |", error_of(lambda: mx.eval(mx.distributed.all_sum(mx.ones(4), group=other))))
    mx.distributed.init()
    assert compiled(mx.ones(4)).tolist() == [2] * 4
group, other = world.split(0), world.split(0)
array = unreceived(group, mx.int32)
if world.rank() == 1:
    say("message |", error_of(lambda: mx.eval(dist.send(array, 0, group=other))))
else:
    say("message |", error_of(lambda: dist.recv((4,), np.int32, 1, group=other)))
"""


def test_the_result(ranks: Ranks, representative: mpis.MPI) -> None:
    """It is NaN, or the integer with all bits set."""
    finished = ranks(representative, 2, BEGIN + RESULTS + END)
    assert finished.output.count("at the end") == 2, finished.output


def test_what_is_queued_behind_it(ranks: Ranks, representative: mpis.MPI) -> None:
    """It fails on all ranks, whatever its group; what is called afterwards works."""
    finished = ranks(representative, 2, BEGIN + BEHIND + END)
    assert finished.output.count("at the end") == 2, finished.output
    said = [line for line in finished.output.splitlines() if " | " in line]
    assert len(said) == 10, finished.output
    assert not [line for line in said if "no error" in line]
    assert "an earlier operation of MLX failed" in finished


OLD = """
other = world.split(0)
if world.rank() == 0:
    mx.eval(dist.send(mx.ones(3), 1))
    array = mx.ones(4)
else:
    array = dist.recv((4,), mx.float32, 0)
print('a sum:', dist.all_sum(array, group=other).tolist())
"""


@pytest.mark.parametrize("version", mpis.OLDER_MLX)
def test_older_releases(ranks: Ranks, one: mpis.MPI, version: str) -> None:
    """They end the process, so the other rank has nobody to get a sum from."""
    path = mpis.OLDER_MLX[version]
    if not (path / "mlx").exists():
        pytest.skip(f"MLX {version} is not installed: python tests/mpis.py install")
    finished = ranks(one, 2, BEGIN + OLD, PYTHONPATH=f"{path}:{mpis.ROOT}")
    assert finished.status != 0
    assert "[recv] rank 0 sent 12 bytes of float32, rank 1 expected 16" in finished
    assert "a sum:" not in finished
