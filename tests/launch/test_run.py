"""`python -m mlxdist program` behaves like python: each program is run both ways, with the same output."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import mpis
import pytest
from conftest import Ranks, run

needs_mlx = pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")

SAYS = """
import os, pickle, sys

class Mine:
    pass

def fail():
    raise KeyError("mine")

print(sys.argv, sys.path[0], __name__, __file__, __package__, repr(__spec__).partition(" object")[0])
print(type(__loader__).__name__, sys.modules["__main__"].__dict__ is globals(), sys._getframe().f_code.co_filename)
print(type(pickle.loads(pickle.dumps(Mine()))) is Mine, {"run_program", "run", "arguments"} & set(globals()))
if sys.argv[1:] == ["fail"]:
    fail()
if sys.argv[1:] == ["exit"]:
    sys.exit("the end")
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("programs")
    (folder / "package").mkdir()
    for name in ("script.py", "launch", "package/__main__.py", "package/module.py"):
        (folder / name).write_text(SAYS)
    with zipfile.ZipFile(folder / "zip.zip", "w") as archive:
        archive.writestr("__main__.py", SAYS)
    (folder / "link.py").symlink_to(folder / "package" / "module.py")
    (folder / "wrong.py").write_text("x y\n")
    (folder / "empty").mkdir()
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["script.py", "a", "-m", "--help"],
        ["./launch"],
        ["link.py"],
        ["package", "a"],
        ["zip.zip", "a"],
        ["-m", "package.module", "a"],
        ["script.py", "exit"],
        ["script.py", "fail"],
        ["-m", "package.module", "fail"],
        ["wrong.py"],
        ["nowhere.py"],
        ["empty"],
        ["-m", "nowhere"],
    ],
    ids=" ".join,
)
def test_is_what_python_does(folder: Path, arguments: list[str]) -> None:
    said = []
    for before in ([], ["-m", "mlxdist"]):
        finished = subprocess.run(
            [sys.executable, *before, *arguments],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(mpis.ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=60,
        )
        said.append((finished.returncode, finished.stdout.replace(" 0x", "")))
    assert said[0][1]
    assert said[1] == said[0]


def test_a_subcommand_is_no_script(folder: Path) -> None:
    finished = run([sys.executable, "-m", "mlxdist", "launch", "--help"])
    assert finished.status == 0
    assert "usage: mlxdist launch" in finished
    finished = run([sys.executable, "-m", "mlxdist"])
    assert finished.status == 2
    assert "usage: mlxdist" in finished


@pytest.mark.parametrize(
    ("arguments", "line"), [(("--no-such-option",), "mlxdist: unrecognized arguments"), (("-m",), "mlxdist: ")]
)
def test_wrong_options(arguments: tuple[str, ...], line: str) -> None:
    finished = run([sys.executable, "-m", "mlxdist", *arguments])
    assert finished.status == 2
    assert finished.output.startswith(line)
    assert finished.output.count("\n") == 1


def test_an_invalid_variable(folder: Path) -> None:
    finished = run([sys.executable, "-m", "mlxdist", str(folder / "script.py")], MLXDIST_TIMEOUT_S="soon")
    if importlib.util.find_spec("mlx"):
        assert finished.status == 1
        assert finished.output.startswith("mlxdist: [init] MLXDIST_TIMEOUT_S='soon'")
        assert finished.output.count("\n") == 1


UNCHANGED = """
import os
import mlx.core as mx

world = mx.distributed.init()
if world.size() > 1 and world.rank() == 1 and FAILS:
    raise KeyError("mine")
print(f"{world.rank()} of {world.size()}: {mx.distributed.all_sum(mx.ones(3)).tolist()}\\n", end="")
print(f"{os.environ['TMPDIR']} is there: {os.path.isdir(os.environ['TMPDIR'])}\\n", end="")
"""


@needs_mlx
def test_an_unchanged_mlx_program(two: mpis.MPI, tmp_path: Path) -> None:
    path = tmp_path / "unchanged.py"
    path.write_text(UNCHANGED.replace("FAILS", "False"))
    arguments = ("launch", "-n", "2", "-m", "mlxdist", str(path))
    environ = {"MLXDIST_LIBMPI": str(two.library_path), "TMPDIR": str(tmp_path)}
    finished = run([sys.executable, "-m", "mlxdist", *arguments], **environ)
    assert finished.status == 0, finished.output
    for rank in (0, 1):
        assert f"[{rank}] {rank} of 2: [2.0, 2.0, 2.0]\n" in finished
    folders = re.findall(rf"\[[01]\] ({re.escape(str(tmp_path))}/mlx-.+) is there: True\n", finished.output)
    assert len(set(folders)) == 2, "what MLX compiles goes into a folder of the rank"
    assert not [*tmp_path.glob("mlx-*")], "which is removed at the end"


@needs_mlx
def test_a_traceback_on_a_rank_begins_in_the_program(two: mpis.MPI, ranks: Ranks, tmp_path: Path) -> None:
    path = tmp_path / "unchanged.py"
    path.write_text(UNCHANGED.replace("FAILS", "True"))
    command = two.command(2, sys.executable, "-m", "mlxdist", path)
    finished = run(command, timeout_s=40, **two.environment())
    assert finished.status != 0
    shown = finished.output.partition("Traceback (most recent call last):\n")[2]
    assert shown.startswith(f'  File "{path}", line 7, in <module>\n')
    assert "mlxdist: rank 1 of 2 failed with KeyError" in finished
