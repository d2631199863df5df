"""C programs that use the core without MPI or Python, as they are and watched by sanitizers: `make sanitize`.

Each file beside this one is a program with tests of its own, see local_ranks.h.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import mpis
import pytest

HERE, CORE, INCLUDE = Path(__file__).parent, mpis.ROOT / "mlxdist" / "core", mpis.ROOT / "include"
COMPILE = (
    "-std=c11",
    "-ffp-contract=off",
    "-g",
    "-Wall",
    "-Wextra",
    "-Werror",
    "-D_GNU_SOURCE",
    f"-I{INCLUDE}",
    f"-I{CORE}",
)
NODE = (*(f"shm/{name}.c" for name in ("segment", "consensus", "node", "arrival")), "call.c", "copy.c")
KERNELS = tuple(str(path.relative_to(CORE)) for path in CORE.glob("kernels/*.c"))
EVERYTHING = tuple(sorted(str(path.relative_to(CORE)) for path in CORE.rglob("*.c") if path.parent.name != "shims"))
# What each is linked with.
PROGRAMS = {
    "arithmetic": (*NODE, "wait.c", *KERNELS),
    "arrivals": (*NODE, "wait.c"),
    "ends": (*NODE, "wait.c"),
    "long": (*NODE, "wait.c", "shm/handshake.c", "shm/symmetric.c", "shm/copy_policy.c", *KERNELS),
    "messages": (*NODE, "wait.c", "shm/handshake.c"),
    "shared": (*NODE, "wait.c", "shm/handshake.c"),
    "consensus": NODE,
    "finished": (*(name for name in NODE if name != "shm/arrival.c"), "shm/handshake.c"),
    "groups": EVERYTHING,
    "works": EVERYTHING,
    "forks": EVERYTHING,
    "created": EVERYTHING,
    "remote": EVERYTHING,
    "plan": EVERYTHING,
    "net": EVERYTHING,
    "given_up": EVERYTHING,
    "differ": EVERYTHING,
    "post": (*NODE, "wait.c"),
}
BUILDS = {
    "plain": ("-O3",),
    "address": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-fno-omit-frame-pointer"),
    "thread": ("-O1", "-fsanitize=thread"),
    "arm64": ("-O3", "-static"),
    "portable": ("-O1", "-U__linux__", "-DCLOCK_UPTIME_RAW=CLOCK_MONOTONIC"),
}
# For a build without Linux's branches: the system that it is for.
SYSTEM = {"portable": (HERE.parent / "portable" / "xnu.c",)}
# Descriptors below /proc, memory without a name, memory that can run out, sets of processors
LINUX_ONLY = ("other-descriptor", "killed-at-any-instant", "signals", "full", "no-room", "more-processors-than-fit")
# These depend on the optimizer: they are also tested as users have them.
QUICK = ("arithmetic", "long", "messages")
# They reduce 16-bit floats: with stack use after return gcc does not align its vectors, its bug 110027.
HALVES = ("arithmetic", "net")
# Another compiler than this machine's, and what runs its programs.
FOREIGN = {"arm64": ("aarch64-linux-gnu-gcc", "qemu-aarch64")}
OPTIONS = {"ASAN_OPTIONS": "detect_leaks=1:detect_stack_use_after_return=1", "TSAN_OPTIONS": "halt_on_error=1"}
EMULATED_SLOWLY = ("groups", "works", "created", "ends", "forks", "remote", "post", "net", "given_up", "differ")
# Their ranks are processes of one thread, or they have none.
WITHOUT_THREADS = ("arithmetic", "forks", "plan", "net", "given_up", "differ")
# Of the build without Linux's branches, those that meet them.
ON_THE_SYSTEM = ("ends", "shared")
SKIPPED, TIMEOUT_S = 77, 120


def names(program: str) -> list[str]:
    """The tests of a program, from the table that its source ends with."""
    return re.findall(r'\{"([a-z-]+)", \w+\}', (HERE / f"{program}.c").read_text().partition("\nPROGRAM(")[2])


@cache
def compiler(build: str) -> str:
    names = FOREIGN[build][:1] if build in FOREIGN else ("cc", "gcc", "clang")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None or (build in FOREIGN and platform.machine() == "aarch64"):
        pytest.skip(f"there is no {names[0]} here" if found is None else "this machine is one itself")
    return found


def command_of(build: str, program: Path) -> list[str]:
    return [*FOREIGN.get(build, ())[1:], str(program)]


@cache
def why_not(folder: Path, build: str) -> str:
    """Empty where the compiler can do it, and what it makes runs here."""
    source, program = folder / f"{build}.c", folder / build
    source.write_text("int main(void) { return 0; }\n")
    made = subprocess.run([compiler(build), *BUILDS[build], source, "-o", program], capture_output=True, text=True)
    command = command_of(build, program)
    if not shutil.which(command[0]) and made.returncode == 0:
        return f"there is no {command[0]}"
    ran = made if made.returncode else subprocess.run(command, capture_output=True, text=True)
    return ran.stderr or f"status {ran.returncode}" if ran.returncode else ""


@cache
def compiled(folder: Path, source: Path, build: str) -> Path:
    path = folder / f"{build}-{'-'.join(source.relative_to(mpis.ROOT).parts)}.o"
    command = [compiler(build), *COMPILE, *BUILDS[build], "-c", source, "-o", path]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return path


@cache
def built(folder: Path, program: str, build: str) -> Path:
    path = folder / f"{program}.{build}"
    sources = [HERE / f"{program}.c", *(CORE / name for name in PROGRAMS[program]), *SYSTEM.get(build, ())]
    with ThreadPoolExecutor(os.cpu_count()) as threads:  # most of the time is spent in compilers
        objects = list(threads.map(lambda source: compiled(folder, source, build), sources))
    command = [compiler(build), *BUILDS[build], "-pthread", "-o", path, *objects, "-ldl", "-lm"]
    made = subprocess.run(command, capture_output=True, text=True)
    assert made.returncode == 0, made.stderr
    return path


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("core")


@pytest.mark.parametrize("build", BUILDS)
@pytest.mark.parametrize(("program", "name"), [(program, name) for program in PROGRAMS for name in names(program)])
def test_core(folder: Path, build: str, program: str, name: str, pytestconfig: pytest.Config) -> None:
    if build in FOREIGN and program in EMULATED_SLOWLY:
        pytest.skip("it takes long when emulated, and what it has of its own is not the processor's")
    if build == "thread" and (program in WITHOUT_THREADS or name.endswith("-of-processes")):
        pytest.skip("the thread sanitizer sees nothing of other processes, and a fork of a thread ends it")
    if build == "portable" and name in LINUX_ONLY:
        pytest.skip("it is about what only Linux has")
    if build == "portable" and program not in ON_THE_SYSTEM and not pytestconfig.getoption("--full"):
        pytest.skip("make test-portable does it")
    if build == "plain" and program not in QUICK and not why_not(folder, "address"):
        pytest.skip("the same is done with the address sanitizer")
    if reason := why_not(folder, build):
        pytest.skip(f"{' '.join(BUILDS[build])} cannot be used here: {reason}")
    finished = subprocess.run(
        [*command_of(build, built(folder, program, build)), name],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        env=os.environ | (OPTIONS if program not in HALVES else {}),
    )
    if finished.returncode == SKIPPED:
        pytest.skip(finished.stdout.strip())
    assert finished.returncode == 0, finished.stdout
    assert "Sanitizer" not in finished.stdout, finished.stdout
    assert "runtime error" not in finished.stdout, finished.stdout


def test_every_program_is_listed(folder: Path) -> None:
    assert set(PROGRAMS) == {path.stem for path in HERE.glob("*.c")}
    build = "plain" if why_not(folder, "address") else "address"
    for program in PROGRAMS:
        listed = subprocess.run([built(folder, program, build)], capture_output=True, text=True, timeout=TIMEOUT_S)
        assert listed.stdout.split() == names(program) != []
        unknown = subprocess.run([built(folder, program, build), "unknown"], timeout=TIMEOUT_S)
        assert unknown.returncode == 1
