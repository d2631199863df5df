"""`mlxdist launch` removes what its ranks leave in /dev/shm when they do not finalize, and no other job's files."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mpis
import pytest
from conftest import run

from mlxdist.cli.launch.rank import SharedFiles

LAUNCH = (sys.executable, "-m", "mlxdist", "launch", "-n", "2")
PROGRAM = """
import os, re, signal, sys, time
import mlxdist as dist

world = dist.init()
with open("/proc/self/maps") as maps:
    print("maps", *set(re.findall(r"/dev/shm/[^ \\n]*$", maps.read(), re.MULTILINE)), flush=True)
dist.barrier()
if world.rank() == 1:
    if sys.argv[1] == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ValueError("wrong")
time.sleep(30)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")
@pytest.mark.parametrize("way", ["killed", "raised", "a shell's child"])
def test_nothing_is_left(two: mpis.MPI, way: str, tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    command = [sys.executable, str(program), way]
    if way == "a shell's child":
        command = ["sh", "-c", f"{shlex.join(command)}; exit $?"]
    done = run([*LAUNCH, *command], timeout_s=40, MLXDIST_LIBMPI=str(two.library_path))
    assert done.status == (137 if way == "killed" else 1), done.output
    mapped = re.findall(r"\] maps (.*)", done.output)
    assert len(mapped) == 2, done.output
    paths = " ".join(mapped).split()
    assert paths or not two.name.startswith("mpich"), "MPICH keeps no name any more: SharedFiles can go"
    assert [path for path in paths if os.path.exists(path)] == []


MAPPING = """
import mmap, sys
file = open(sys.argv[1], "w+b")
file.truncate(4096)
mapped = mmap.mmap(file.fileno(), 4096)
print("mapped", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def names() -> Iterator[tuple[str, str]]:
    """Two names like those of MPICH's files."""
    found = tuple(f"/dev/shm/mpich_shm_{os.getpid():x}_{number}" for number in range(2))
    yield found[0], found[1]
    for path in found:
        Path(path).unlink(missing_ok=True)


def mapping(path: str) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", MAPPING, path], stdin=pipe, stdout=pipe)
    assert process.stdout
    process.stdout.readline()
    return process


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /dev/shm")
def test_whose_files_are_removed(names: tuple[str, str]) -> None:
    """What the program maps; not another's, not one that has the same name later, and none after its end."""
    with mapping(names[0]) as ours, mapping(names[1]) as theirs:
        files = SharedFiles(ours)
        files.look()
        assert [path for _, path in files.seen] == [names[0]]
        ours.communicate()
        theirs.communicate()
    with mapping(names[1]) as process:
        process.communicate()
        late = SharedFiles(process)
        late.look()
        assert not late.seen
    another = Path(f"{names[0]}.new")
    another.write_text("of another job")
    kept = Path(names[0]).stat().st_ino
    another.rename(names[0])
    assert Path(names[0]).stat().st_ino != kept
    files.remove()
    assert Path(names[0]).exists()
    assert Path(names[1]).exists()
