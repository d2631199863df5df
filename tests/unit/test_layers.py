"""Each file uses only what stands before it; some things stand in one place only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import mpis
import pytest

PACKAGE, INCLUDE = mpis.ROOT / "mlxdist", mpis.ROOT / "include" / "mlxdist"
# From the bottom to the top. Files of one line are one room: they may use each other.
ORDER = (
    ("types.h",),
    ("call.h", "call.c"),
    ("abi.h", "abi.c"),
    ("half.h",),
    (
        "kernels.h",
        "kernel_impl.h",
        "kernels_plain.c",
        "kernels_avx2.c",
        "kernels_avx512.c",
        "kernels_neon.c",
        "kernels.c",
    ),
    ("copy.h", "copy.c"),
    ("wait.h", "wait.c"),
    ("method.h", "method.c"),
    ("segment.h", "segment.c"),
    ("node.h", "node.c"),
    ("share.h", "share.c"),
    ("window.h", "window.c"),
    ("post.h", "post.c"),
    ("pool.h", "pool.c"),
    ("exchange.h", "exchange.c"),
    ("transport.h", "mpi_impl.h", "mpi_int.c", "mpi_ptr.c", "alone.c"),
    ("job.h", "job.c"),
    ("arrive.h", "arrive.c"),
    ("message.h", "message.c"),
    ("measure.h", "measure.c"),
    ("core.h", "core.c"),
    ("mlx_libmpi.h", "mlx_libmpi.cpp"),
    ("errors",),
    ("config",),
    ("launchers",),
    ("loader",),
    ("_core",),
    ("arrays", "arrays.*"),
    ("mlx",),
    ("world",),
    ("ops",),
    ("gradients",),
    ("drop_in",),
    ("",),  # mlxdist itself
    ("cli.cases",),
    ("cli.contenders",),
    ("cli.peers",),
    ("cli.report",),
    ("cli.bench",),
    ("cli.hosts",),
    ("cli.ssh",),
    ("cli.mpirun",),
    ("cli.rank",),
    ("cli.reports",),
    ("cli.output",),
    ("cli.job",),
    ("cli.launch",),
    ("cli.situation",),
    ("cli.finding",),
    ("cli.choice",),
    ("cli.machine",),
    ("cli.installed",),
    ("cli.checks",),
    ("cli.proof",),
    ("cli.diagnosis",),
    ("cli.doctor",),
    ("cli.run",),
    ("cli",),
    ("__main__",),
)
FRAMEWORKS = ("mlx", "torch", "jax", "cupy", "mpi4py", "matplotlib", "rich", "tqdm", "ml_dtypes")
GENERATED = PACKAGE / "_core.c"
LONGEST = 500

SOURCES = sorted(
    path
    for folder in (PACKAGE, INCLUDE)
    for path in folder.rglob("*")
    if path.suffix in (".py", ".pyx", ".pxd", ".pyi", ".c", ".h", ".cpp") and path != GENERATED
)
PYTHON = [path for path in SOURCES if path.suffix == ".py"]


def label(path: Path) -> str:
    return str(path.relative_to(mpis.ROOT))


each_source = pytest.mark.parametrize("path", SOURCES, ids=label)
each_python = pytest.mark.parametrize("path", PYTHON, ids=label)


def name_of(path: Path) -> str:
    """What ORDER calls a file."""
    if path.suffix in (".c", ".h", ".cpp"):
        return path.name
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def level(name: str) -> int:
    for number, room in enumerate(ORDER):
        if name in room or f"{name.partition('.')[0]}.*" in room:
            return number
    raise AssertionError(f"{name!r} has no place in ORDER")


def used_in_c(text: str) -> set[str]:
    return {Path(header).name for header in re.findall(r'^\s*#\s*include\s+"([^"]+)"', text, re.MULTILINE)}


def used_in_python(text: str) -> set[str]:
    """The modules of mlxdist that are imported anywhere, also inside functions."""
    used = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            used |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: a relative import"
            used |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {known_module(name) for name in used if name.partition(".")[0] == "mlxdist"}


def used_in_cython(text: str) -> set[str]:
    headers = {Path(header).name for header in re.findall(r'^cdef extern from "([^"<]+)"', text, re.MULTILINE)}
    lines = re.findall(r"^[ \t]*(?:from[ \t]+[\w.]+[ \t]+)?c?import[ \t]+[^#\n]+", text, re.MULTILINE)
    return headers | used_in_python("\n".join(line.strip().replace("cimport", "import") for line in lines))


def known_module(name: str) -> str:
    """The longest part of a dotted name that is a file of ours, without the leading mlxdist."""
    parts = name.split(".")[1:]
    while (
        parts
        and not any(PACKAGE.joinpath(*parts).with_suffix(suffix).exists() for suffix in (".py", ".pyx"))
        and not PACKAGE.joinpath(*parts, "__init__.py").exists()
    ):
        parts.pop()
    return ".".join(parts)


READERS = {
    ".py": used_in_python,
    ".pyi": used_in_python,
    ".pyx": used_in_cython,
    ".pxd": used_in_cython,
    ".c": used_in_c,
    ".h": used_in_c,
    ".cpp": used_in_c,
}


@each_source
def test_uses_only_what_stands_before(path: Path) -> None:
    own = level(name_of(path))
    for used in READERS[path.suffix](path.read_text()):
        assert level(used) <= own, f"{label(path)} uses {used or 'mlxdist'}, which stands above it"


def test_what_is_read_is_what_is_used() -> None:
    """The readers above find what they look for."""
    assert used_in_c((PACKAGE / "core" / "mpi_int.c").read_text()) == {"abi.h", "mpi_impl.h"}
    assert {"_core", "mlx", "world", "arrays"} <= used_in_python((PACKAGE / "ops.py").read_text())
    assert {"types.h", "core.h", "mlx_libmpi.h"} <= used_in_cython((PACKAGE / "_core.pxd").read_text())
    assert {"errors"} <= used_in_cython((PACKAGE / "_core.pyx").read_text())
    assert used_in_python("def f():\n    from mlxdist import all_sum") == {""}
    assert level("types.h") < level("node.c") < level("core.c") < level("errors") < level("arrays.numpy") < level("")


@each_source
def test_numbers_of_mpi_stand_in_abi_h_only(path: Path) -> None:
    """Handles like 0x44000000 of MPICH."""
    found = re.findall(r"0x(?:04|44|4c|54|58|5c|6c)[0-9a-f]{6}\b|-32766\b", path.read_text(), re.IGNORECASE)
    assert bool(found) == (path.name == "abi.h")


@each_source
def test_variables_are_named_in_config_only(path: Path) -> None:
    """Else a variable could be read that is documented nowhere. The macros of types.h begin alike."""
    text = path.read_text()
    if path.suffix in (".py", ".pyx", ".pxd", ".pyi"):
        found = set(re.findall(r"MLXDIST_\w*", text)) - {"MLXDIST_TYPES", "MLXDIST_REDUCTIONS", "MLXDIST_OPERATIONS"}
        assert bool(found) == (name_of(path) == "config")
    else:
        assert "getenv" not in text


@each_source
def test_is_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST, f"{label(path)} has {lines} lines: divide it"


@each_python
def test_no_framework_is_imported_with_the_module(path: Path) -> None:
    def outside_functions(node: ast.AST) -> list[ast.AST]:
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            return []
        return [node, *(inner for child in ast.iter_child_nodes(node) for inner in outside_functions(child))]

    for node in outside_functions(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        assert not {name.partition(".")[0] for name in names} & set(FRAMEWORKS), f"line {node.lineno}"


def test_importing_opens_nothing() -> None:
    program = f"""
import sys
import mlxdist
loaded = [name for name in {FRAMEWORKS} if name in sys.modules]
assert not loaded, loaded
assert mlxdist.info().backend == "not started"
if sys.platform == "linux":
    files = {{line.split()[-1].rpartition("/")[2] for line in open("/proc/self/maps")}}
    assert any(name.startswith("_core.") for name in files), files
    assert not [name for name in files if name.startswith(("libmpi", "libmpich", "libopen-"))], files
print("looked")
"""
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=mpis.ROOT)
    assert finished.stdout == "looked\n", finished.stderr
