"""mlxdist and its tests on arm64 Linux, emulated by qemu-user on Linux of another kind.

python tests/arm64.py   builds for arm64, runs tests/unit, and tests/parallel on 2 ranks of Debian's MPICH and Open MPI

Debian's packages for arm64 are unpacked below build/arm64/, without root. Python and the libmpi come from there and are
emulated; the compiler and the launcher are this machine's own, which is Debian 12 with: apt install qemu-user
g++-aarch64-linux-gnu mpich openmpi-bin
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from pathlib import Path

import debian
import mpis
from conftest import PARALLEL
from pythons import NEEDED, WANTED, Failed, copy_of_tree, counts, run

BUILD = mpis.ROOT / "build" / "arm64"
SUITE, VERSION = "bookworm", "3.11"  # the same MPIs as tests/mpis.py's debian-..., whose launchers start the ranks
MPIS = tuple(mpi for mpi in mpis.MPIS if mpi.name in ("debian-mpich", "debian-openmpi"))
COMPILERS, EMULATOR = ("aarch64-linux-gnu-gcc", "aarch64-linux-gnu-g++"), "qemu-aarch64"


def emulated(folder: Path) -> Path:
    """A folder of programs for PATH: Python for arm64 with what the tests need, and the compiler for it."""
    root, site, programs = folder / "root", folder / "site", folder / "bin"
    if programs.exists():
        return programs
    headers = f"libpython{VERSION}-dev"
    debian.unpack(root, SUITE, "arm64", f"python{VERSION}", "mpich", "openmpi-bin", alone=(headers,))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", site, "--only-binary", ":all:"]
    kind = ["--platform", "manylinux_2_28_aarch64", "--platform", "manylinux2014_aarch64", "--python-version", VERSION]
    run([*pip, *kind, *NEEDED, *WANTED])
    # Without this a test that starts sys.executable would ask this machine to run a program for arm64.
    (site / "sitecustomize.py").write_text(f"import sys\nsys.executable = {str(programs / 'python')!r}\n")
    programs.mkdir()
    for name, command in (("python", f"{EMULATOR} -L {root} {root}/usr/bin/python{VERSION}"), ("cc", COMPILERS[0])):
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    return programs


def main() -> int:
    missing = [name for name in (*COMPILERS, EMULATOR) if not shutil.which(name)]
    missing += [mpi.launcher for mpi in MPIS if not mpi.launcher_path.exists()]
    if missing:
        print(f"there is no {', '.join(missing)}: install the packages that this file names", file=sys.stderr)
        return 1
    failed = []
    try:
        programs, tree = emulated(BUILD), copy_of_tree(BUILD)
        python = programs / "python"
        environ = {
            "PYTHONPATH": f"{tree}:{BUILD / 'site'}",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "NO_COLOR": "1",
        }
        # In C: Cython would take minutes on an emulated processor.
        run([sys.executable, "-m", "cython", "-3", "mlxdist/_core.pyx"], tree)
        began = time.monotonic()
        run(
            [python, "setup.py", "--quiet", "build_ext", "--inplace"],
            tree,
            CFLAGS=f"-I{BUILD}/root/usr/include",
            **environ,
        )
        print(f"built in {time.monotonic() - began:.0f} s", flush=True)
    except (debian.Unavailable, Failed) as why:
        print(f"arm64 cannot be tested: {why}", file=sys.stderr)
        return 1
    commands: dict[str, list[str | Path]] = {"alone": [python, *PARALLEL[1:-2], "tests/unit"]}
    variables = {"alone": environ}
    for mpi in MPIS:
        commands[f"2 ranks, {mpi.name}"] = list(mpi.command(2, python, *PARALLEL[1:]))
        variables[f"2 ranks, {mpi.name}"] = environ | mpi.environment()
    for what, command in commands.items():
        began = time.monotonic()
        try:
            print(f"{what}: {counts(run(command, tree, **variables[what]))}", flush=True)
        except Failed as why:
            print(f"{what}: FAILED after {time.monotonic() - began:.0f} s: {why}", flush=True)
            failed.append(what)
    print(f"failed: {', '.join(failed) or 'none'}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
