"""C programs that use the core without MPI or Python, as they are and watched by sanitizers: `make sanitize`.

Each file beside this one is a program with tests of its own, see seats.h.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import mpis
import pytest

HERE, CORE, INCLUDE = Path(__file__).parent, mpis.ROOT / "mlxdist" / "core", mpis.ROOT / "include"
COMPILE = ("-std=c11", "-g", "-Wall", "-Wextra", "-Werror", "-D_GNU_SOURCE", f"-I{INCLUDE}", f"-I{CORE}")
# node.c is a part of every program; what else each is linked with.
PROGRAMS = {
    "arrivals": ("segment.c", "wait.c", "call.c", "copy.c"),
    "ends": ("segment.c", "wait.c", "call.c", "copy.c"),
    "long": (
        *("segment.c", "wait.c", "call.c", "share.c", "pool.c", "copy.c", "method.c"),
        *(path.name for path in CORE.glob("kernels*.c")),
    ),
    "messages": ("segment.c", "wait.c", "call.c", "copy.c", "share.c"),
    "shared": ("segment.c", "wait.c", "call.c", "copy.c"),
    "verdict": ("segment.c", "call.c", "copy.c"),
    "groups": tuple(sorted(path.name for path in CORE.glob("*.c") if path.name != "node.c")),
}
BUILDS = {
    "plain": ("-O3",),
    "address": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    "thread": ("-O1", "-fsanitize=thread"),
}
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "TSAN_OPTIONS": "halt_on_error=1"}
SKIPPED, TIMEOUT_S = 77, 120


def names(program: str) -> list[str]:
    """The tests of a program, from the table that its source ends with."""
    return re.findall(r'\{"([a-z-]+)", \w+\}', (HERE / f"{program}.c").read_text().partition("\nPROGRAM(")[2])


@cache
def compiler() -> str:
    found = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if found is None:
        pytest.skip("there is no C compiler here")
    return found


@cache
def why_not(folder: Path, build: str) -> str:
    """Empty where the compiler can do it, and what it makes runs here."""
    source, program = folder / f"{build}.c", folder / build
    source.write_text("int main(void) { return 0; }\n")
    made = subprocess.run([compiler(), *BUILDS[build], source, "-o", program], capture_output=True, text=True)
    ran = subprocess.run([program], capture_output=True, text=True) if made.returncode == 0 else made
    return ran.stderr or f"status {ran.returncode}" if ran.returncode else ""


@cache
def built(folder: Path, program: str, build: str) -> Path:
    path = folder / f"{program}.{build}"
    sources = [HERE / f"{program}.c", *(CORE / name for name in PROGRAMS[program])]
    command = [compiler(), *COMPILE, *BUILDS[build], *map(str, sources), "-o", str(path), "-pthread", "-ldl", "-lm"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("core")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in names(program)])
def test_core(folder: Path, build: str, program: str, name: str) -> None:
    if reason := why_not(folder, build):
        pytest.skip(f"{' '.join(BUILDS[build])} cannot be used here: {reason}")
    finished = subprocess.run(
        [built(folder, program, build), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | OPTIONS,
    )
    if finished.returncode == SKIPPED:
        pytest.skip(finished.stdout.strip())
    assert finished.returncode == 0, finished.stdout
    assert "Sanitizer" not in finished.stdout, finished.stdout
    assert "runtime error" not in finished.stdout, finished.stdout


def test_every_program_is_listed(folder: Path) -> None:
    assert set(PROGRAMS) == {path.stem for path in HERE.glob("*.c")}
    for program in PROGRAMS:
        listed = subprocess.run([built(folder, program, "plain")], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert listed.stdout.split() == names(program) != []
        unknown = subprocess.run([built(folder, program, "plain"), "unknown"], timeout=TIMEOUT_S)
        assert unknown.returncode == 1
