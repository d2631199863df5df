"""A rank that is gone without a word is noticed as on Linux, on a system without record locks on shared memory."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import mpis
import pytest
from conftest import run
from launch.test_death import KEEPING, SOON_S

pytestmark = pytest.mark.skipif("xnu.so" not in os.environ.get("LD_PRELOAD", ""), reason="make test-portable runs it")

PROGRAM = """
import os, signal, sys, time
import mlxdist as dist

way, call, place = sys.argv[1:]
world = dist.init()
print(dist.info().shared_memory, flush=True)
dist.barrier()
if world.rank():
    time.sleep(0.2)
    with open(place, "w") as file:
        file.write(str(time.monotonic()))
    os._exit(0) if way == "os._exit(0)" else os.kill(os.getpid(), signal.SIGKILL)
try:
    dist.finalize() if call == "finalize" else dist.all_sum(1)
except dist.PeerError as error:
    with open(place) as file:
        print(f"told after {time.monotonic() - float(file.read()):.3f} s: {error}", flush=True)
"""


def test_this_is_the_portable_build() -> None:
    built = next((mpis.ROOT / "mlxdist").glob("_core*.so"))
    assert b"fileport_makeport" in built.read_bytes()
    assert "xnu.so" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("call", ["all_sum", "finalize"])
@pytest.mark.parametrize("way", ["SIGKILL", "os._exit(0)"])
def test_the_other_rank_is_told(two: mpis.MPI, way: str, call: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    launcher, *command = two.command(2, sys.executable, program, way, call, tmp_path / "died")
    environ = two.environment() | {"MLXDIST_ABORT": "0"}
    finished = run([launcher, *KEEPING[two.name], *command], timeout_s=30, **environ)
    assert "2 ranks on this host" in finished
    told = re.search(r"told after ([\d.]+) s: .*rank 1 \(pid \d+ on .*\) has died", finished.output)
    assert told, finished.output
    assert float(told[1]) < SOON_S
    assert finished.left == ()
