"""A rank that is gone without a word is noticed as on Linux, on a system without record locks on shared memory."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import mpis
import pytest
from conftest import run
from launch.test_death import SOON_S

pytestmark = pytest.mark.skipif("xnu.so" not in os.environ.get("LD_PRELOAD", ""), reason="make test-portable runs it")

PROGRAM = """
import os, pathlib, signal, sys, time
import mlxdist as dist

way, call = sys.argv[1:]
died, told = pathlib.Path("died"), pathlib.Path("told")
world = dist.init()
assert dist.info().shared_memory == "2 ranks on this host"
dist.barrier()
if world.rank():
    time.sleep(0.2)
    died.write_text(str(time.monotonic()))
    os._exit(0) if way == "os._exit(0)" else os.kill(os.getpid(), signal.SIGKILL)
try:
    dist.finalize() if call == "finalize" else dist.all_sum(1)
except dist.PeerError as error:
    told.write_text(f"{time.monotonic() - float(died.read_text())} {error}")
"""
# The parent of each rank, so that the launcher, which would end the others, does not see the death before they do.
PARENT = 'cd "$0"; "$@"; for _ in 1 2 3 4 5 6 7 8 9 10; do [ -e told ] || sleep 0.2; done'


def test_this_is_the_portable_build() -> None:
    built = next((mpis.ROOT / "mlxdist").glob("_core*.so"))
    assert b"fileport_makeport" in built.read_bytes()
    assert "xnu.so" in Path("/proc/self/maps").read_text()


@pytest.mark.parametrize("call", ["all_sum", "finalize"])
@pytest.mark.parametrize("way", ["SIGKILL", "os._exit(0)"])
def test_the_other_rank_is_told(two: mpis.MPI, way: str, call: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = two.command(2, "sh", "-c", PARENT, tmp_path, sys.executable, program, way, call)
    finished = run(command, timeout_s=30, **two.environment(), MLXDIST_ABORT="0")
    assert (tmp_path / "told").exists(), finished.output
    after_s, _, text = (tmp_path / "told").read_text().partition(" ")
    assert re.search(r"rank 1 \(pid \d+ on .*\) has died", text)
    assert float(after_s) < SOON_S, text
    assert finished.left == ()
