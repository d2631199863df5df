"""Each file uses only what comes before it in ORDER; some things may be in one place only."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import mpis
import pytest

PACKAGE, INCLUDE = mpis.ROOT / "mlxdist", mpis.ROOT / "include" / "mlxdist"
# From the bottom to the top: a folder of C, a file of the ground floor, a Python module or a package ("arrays.*").
# Files in one line may use each other. The order of the files within a folder of C is in WITHIN.
ORDER = (
    ("types.h",),
    ("call",),
    ("copy",),
    ("wait",),
    ("measure",),
    ("kernels/",),
    ("shm/",),
    ("mpi/",),
    ("net/",),
    ("group/",),
    ("xla/",),
    ("shim",),
    ("shims/",),
    ("errors",),
    ("config",),
    ("mpi.processes",),
    ("mpi.launchers",),
    ("mpi.search",),
    ("_core",),
    ("shims",),
    ("mpi.choose",),
    ("mlx", "mlx.backend"),
    ("arrays", "arrays.*"),
    ("jax.primitives",),
    ("mpi",),
    ("work",),
    ("mpi.communicators",),
    ("groups",),
    ("world",),
    ("dispatch",),
    ("trees",),
    ("parameters",),
    ("ops",),
    ("gradients",),
    ("mlx.install",),
    ("jax", "jax.backend", "jax.cliques", "jax.distributed"),
    ("",),  # mlxdist itself
    ("torch.tensors",),
    ("torch.work",),
    ("torch.schedule",),
    ("torch.collectives",),
    ("torch.process_group",),
    ("torch.start",),
    ("torch",),
    ("cli.objects",),
    ("cli.launch.hosts",),
    ("cli.launch.rank",),
    ("cli.launch.ssh",),
    ("cli.launch.interfaces",),
    ("cli.launch.networks",),
    ("cli.launch.mpirun",),
    ("cli.launch.output",),
    ("cli.launch.reports",),
    ("cli.launch.job",),
    ("cli.launch.command",),
    ("cli.launch",),
    ("cli.bench.cases",),
    ("cli.bench.hosts",),
    ("cli.bench.wire",),
    ("cli.bench.backends",),
    ("cli.bench.baselines",),
    ("cli.bench.report",),
    ("cli.bench.measure",),
    ("cli.bench.command",),
    ("cli.bench",),
    ("cli.doctor.environment",),
    ("cli.doctor.finding",),
    ("cli.doctor.checks_choice",),
    ("cli.doctor.checks_machine",),
    ("cli.doctor.link",),
    ("cli.doctor.links",),
    ("cli.doctor.checks_network",),
    ("cli.doctor.checks_installed",),
    ("cli.doctor.checks",),
    ("cli.doctor.probe",),
    ("cli.doctor.diagnosis",),
    ("cli.doctor.privacy",),
    ("cli.doctor.report",),
    ("cli.doctor.command",),
    ("cli.doctor",),
    ("cli.run",),
    ("cli",),
    ("__main__",),
)
WITHIN = {
    "kernels/": ("half", "kernels", "kernel_impl"),
    "shm/": (
        "copy_policy",
        "segment",
        "consensus",
        "node",
        "arrival",
        "slots",
        "handshake",
        "mailbox",
        "symmetric",
        "staging",
        "pipeline",
        "shm",
    ),
    "mpi/": ("abi", "transport", "mpi_impl", "runtime"),
    "net/": ("hosts", "plan", "news", "crossing", "opening", "short", "answer", "chunks", "rail", "relay", "net"),
    "group/": (
        *("members", "bounce", "remote", "p2p", "collective", "work", "queue", "background", "notices", "agreement"),
        *("group", "core"),
    ),
    "xla/": ("ffi", "handler"),
    "shims/": ("mlx_libmpi", "mpiabi_names", "jax_mpiwrapper"),
}
# Bodies that have another name than their contract.
BODY_OF = {
    "kernels_plain": "kernel_impl",
    "kernels_avx2": "kernel_impl",
    "kernels_avx512": "kernel_impl",
    "kernels_neon": "kernel_impl",
    "mpi_collectives": "mpi_impl",
    "mpi_messages": "mpi_impl",
    "mpi_int": "mpi_impl",
    "mpi_ptr": "mpi_impl",
    "mpi_comms": "mpi_impl",
    "alone": "mpi_impl",
    "job": "core",
    "operations": "core",
}
FRAMEWORKS = ("mlx", "torch", "jax", "cupy", "mpi4py", "matplotlib", "rich", "tqdm", "ml_dtypes")
GENERATED = PACKAGE / "_core.c"
LONGEST = 500
TABLES = {"MLXDIST_TYPES", "MLXDIST_REDUCTIONS", "MLXDIST_OPERATIONS", "MLXDIST_CALLS"}

SOURCES = sorted(
    path
    for folder in (PACKAGE, INCLUDE)
    for path in folder.rglob("*")
    if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".pyi", ".c", ".h", ".cpp") and path != GENERATED
)
C = (".c", ".h", ".cpp")
TESTS = sorted(path for path in (mpis.ROOT / "tests").rglob("*") if path.suffix in (".py", ".c", ".h", ".pml"))
PYTHON = [path for path in SOURCES if path.suffix == ".py"]


def label(path: Path) -> str:
    return str(path.relative_to(mpis.ROOT))


each_source = pytest.mark.parametrize("path", SOURCES, ids=label)
each_python = pytest.mark.parametrize("path", PYTHON, ids=label)


def name_of(path: Path) -> str:
    """What ORDER calls a file: "shm/node" for one in a folder of C, "arrays.numpy" for a module."""
    if path.suffix == ".pxi":
        return "_core"
    if path.suffix in C:
        inside = path.relative_to(INCLUDE if INCLUDE in path.parents else PACKAGE / "core")
        return str(inside) if inside == Path("types.h") else str(inside.with_name(BODY_OF.get(path.stem, path.stem)))
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def level(name: str) -> tuple[int, int]:
    folder, slash, stem = name.rpartition("/")
    for number, room in enumerate(ORDER):
        if name in room or f"{name.partition('.')[0]}.*" in room:
            return number, 0
        if slash and folder + slash in room:
            return number, WITHIN[folder + slash].index(stem)
    raise AssertionError(f"{name!r} has no place in ORDER")


def used_in_c(text: str) -> set[str]:
    """Headers of ours; those without a path are next to the file, and are a part of it."""
    headers = re.findall(r'^\s*#\s*include\s+"mlxdist/([^"]+)"', text, re.MULTILINE)
    return {name_of(INCLUDE / header) for header in headers}


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
    headers = {
        name_of(INCLUDE / header) for header in re.findall(r'^cdef extern from "mlxdist/([^"<]+)"', text, re.MULTILINE)
    }
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
    ".pxi": used_in_cython,
    ".c": used_in_c,
    ".h": used_in_c,
    ".cpp": used_in_c,
}


@each_source
def test_uses_only_what_stands_before(path: Path) -> None:
    own = level(name_of(path))
    for used in READERS[path.suffix](path.read_text()):
        assert level(used) <= own, f"{label(path)} uses {used or 'mlxdist'}, which stands above it"


@each_source
def test_shared_memory_has_one_face(path: Path) -> None:
    used = {name for name in READERS[path.suffix](path.read_text()) if name.startswith("shm/")}
    assert name_of(path).startswith("shm/") or used <= {"shm/shm"}


def test_what_is_read_is_what_is_used() -> None:
    """The readers above find what they look for."""
    assert used_in_c((PACKAGE / "core/mpi/mpi_int.c").read_text()) == {"mpi/abi"}
    assert {"_core", "mlx.backend", "world", "arrays"} <= used_in_python((PACKAGE / "dispatch.py").read_text())
    assert {"types.h", "group/core", "shims/mlx_libmpi"} <= used_in_cython((PACKAGE / "_core.pxd").read_text())
    assert {"errors"} <= used_in_cython((PACKAGE / "_core.pyx").read_text())
    assert used_in_python("def f():\n    from mlxdist import all_sum") == {""}
    assert (
        level("types.h")
        < level("shm/node")
        < level("shm/pipeline")
        < level("group/core")
        < level("errors")
        < level("arrays.numpy")
        < level("")
    )


@each_source
def test_numbers_of_mpi_stand_in_abi_h_only(path: Path) -> None:
    """Handles like 0x44000000 of MPICH."""
    found = re.findall(r"0x(?:04|44|4c|54|58|5c|6c)[0-9a-f]{6}\b|-32766\b", path.read_text(), re.IGNORECASE)
    assert bool(found) == (path.name == "abi.h")


@each_source
def test_variables_are_named_in_config_only(path: Path) -> None:
    """Else a variable could be read that is documented nowhere. The macros of types.h begin alike."""
    text = path.read_text()
    if path.suffix in (".py", ".pyx", ".pxd", ".pxi", ".pyi"):
        found = set(re.findall(r"MLXDIST_\w*", text)) - {
            "MLXDIST_TYPES",
            "MLXDIST_REDUCTIONS",
            "MLXDIST_OPERATIONS",
            "MLXDIST_CALLS",
        }
        assert bool(found) == (name_of(path) == "config")
    else:
        assert "getenv" not in text


@pytest.mark.parametrize("path", [*SOURCES, *TESTS], ids=label)
def test_is_short(path: Path) -> None:
    lines = len(path.read_text().splitlines())
    assert lines <= LONGEST, f"{label(path)} has {lines} lines: divide it"


# These packages are imported only where their framework is in use.
FOR_ONE_FRAMEWORK = ("jax", "torch")


@each_python
def test_no_framework_is_imported_with_the_module(path: Path) -> None:
    if path.relative_to(PACKAGE).parts[0] in FOR_ONE_FRAMEWORK:
        return

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
