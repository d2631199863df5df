"""The faults that `make crosscheck` is there for are found; it runs these first."""

from pathlib import Path

import check
import pytest
import toolchain
from setuptools import Extension
from targets import TARGETS, Target

MACOS, LINUX = TARGETS[0], TARGETS[2]
MARKED = '__attribute__((visibility("default"))) int marked(void)'
RIGHT = f"int hidden(void);\nint hidden(void) {{ return 1; }}\n{MARKED};\n{MARKED} {{ return hidden(); }}\n"
THROWS = f"{MARKED};\n{MARKED} {{ throw 1; }}\n"
LOCKS = f"#include <mutex>\nstatic std::mutex mutex;\n{MARKED};\n{MARKED} {{ mutex.lock(); return 0; }}\n"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the sources are."""
    monkeypatch.setattr(toolchain, "ROOT", tmp_path)
    return tmp_path


def build(target: Target, sources: dict[str, str], visibility: str = "hidden") -> None:
    for name, text in sources.items():
        (toolchain.ROOT / name).write_text(text)
    compile_args = ["-O1", f"-fvisibility={visibility}"]
    check.build(target, Extension("planted", [*sources], extra_compile_args=compile_args), "3.11")


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ("int unused; return 0;", "unused variable"),
        ("return sched_getcpu();", "undeclared function 'sched_getcpu'"),
        ("extern int sched_getcpu(void); return sched_getcpu();", "sched_getcpu is undefined: neither Python nor"),
        ('return mkfifoat(0, "", 0);', "only available on macOS 13.0"),
        ("extern int MPI_Barrier(void *); return MPI_Barrier(0);", "MPI_Barrier is undefined: libmpi"),
    ],
)
def test_in_a_branch_for_macos(planted: str, found: str) -> None:
    text = f"{MARKED} {{\n#ifdef __APPLE__\n{planted}\n#else\nreturn 0;\n#endif\n}}\n"
    sources = {"planted.c": f"#include <sched.h>\n#include <sys/stat.h>\n{text}"}
    build(LINUX, sources)
    with pytest.raises(toolchain.Failed, match=found):
        build(MACOS, sources)


@pytest.mark.parametrize("target", [MACOS, LINUX], ids=lambda target: target.name)
def test_names(target: Target) -> None:
    build(target, {"right.c": RIGHT})
    with pytest.raises(toolchain.Failed, match="hidden is exported"):
        build(target, {"right.c": RIGHT}, visibility="default")
    with pytest.raises(toolchain.Failed, match="_ZNSt3__15mutex4lockEv is undefined"):
        build(target, {"locks.cpp": LOCKS})


def test_a_cxx_runtime_of_its_own() -> None:
    own = "void __cxa_throw(void);\nvoid __cxa_throw(void) {}\n"
    with pytest.raises(toolchain.Failed, match="__cxa_throw is not the system's"):
        build(LINUX, {"throws.cpp": THROWS, "own.c": own})
