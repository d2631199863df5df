"""`make test-portable`: a build without what the core has for Linux alone is tested as on macOS, which xnu.c imitates.

In a copy of the tree, build/portable, so that the tests there find that build and no other.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
COPY = ROOT / "build" / "portable"
COPIED = ("include", "mlxdist", "tests", "pyproject.toml", "setup.py", "LICENSE", "README.md")
SYSTEM = COPY / "xnu.so"
# Compiles the core as test_core.py does, with the only clock of its kind here. Debian's Python.h needs __linux__.
COMPILER = """#!/bin/sh
case "$*" in *" mlxdist/core/"*) set -- "$@" -U__linux__ -DCLOCK_UPTIME_RAW=CLOCK_MONOTONIC ;; esac
exec cc "$@"
"""

PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
# What depends on the memory of a host; without the test that counts mappings of unnamed files.
PARALLEL = ("broadcast", "gather", "messages", "scatter", "shared", "split", "threads")
PARALLEL_TESTS = (
    *(f"tests/parallel/test_{name}.py" for name in PARALLEL),
    "--deselect=tests/parallel/test_shared.py::test_memory_is_given_back_with_the_last_view",
)
TESTS = (
    (*PYTEST, "tests/portable"),
    (*PYTEST, "tests/core", "-k", "portable", "--full"),
    (*PYTEST, "tests/launch/test_death.py", "--mpi=openmpi-5", "-k", "survivors"),
    (*PYTEST, "tests/launch/test_liveness.py", "-k", "closes"),
    *((sys.executable, "tests/mpis.py", "run", mpi, "2", *PYTEST, *PARALLEL_TESTS) for mpi in ("openmpi-5", "mpich-5")),
)


def build() -> None:
    shutil.rmtree(COPY, ignore_errors=True)
    COPY.mkdir(parents=True)
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, COPY / name, ignore=shutil.ignore_patterns("_core*.so", "__pycache__"))
        else:
            shutil.copy2(ROOT / name, COPY)
    (COPY / ".mpi").symlink_to(ROOT / ".mpi")
    library = ["cc", "-std=c11", "-O1", "-D_GNU_SOURCE", "-shared", "-fPIC", "-o", SYSTEM]
    subprocess.run([*library, "tests/portable/xnu.c", "-ldl"], cwd=COPY, check=True)
    compiler = COPY / "cc"
    compiler.write_text(COMPILER)
    compiler.chmod(0o755)
    extension = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
    subprocess.run(extension, cwd=COPY, check=True, env=os.environ | {"CC": str(compiler)})


def main() -> int:
    build()
    environ = os.environ | {"LD_PRELOAD": str(SYSTEM), "PYTHONPATH": str(COPY)}
    failed = [command for command in TESTS if subprocess.run(command, cwd=COPY, env=environ).returncode]
    for command in failed:
        print("failed:", *command)
    return len(failed)


if __name__ == "__main__":
    sys.exit(main())
