"""What each shared object exports: libmpi and other extensions bind to nothing of ours by accident."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
from pathlib import Path

import mpis
import pytest

from mlxdist import _core
from mlxdist.jax import backend as jax_backend
from mlxdist.mlx import backend

CORE, MLX_LIBMPI, JAX_MPIWRAPPER = Path(_core.__file__), Path(backend.SHIM), Path(jax_backend.SHIM)
SHIMS = {"_mlx_libmpi": MLX_LIBMPI, "_jax_mpiwrapper": JAX_MPIWRAPPER}


def symbols(path: Path, option: str) -> set[str]:
    if shutil.which("nm") is None:
        pytest.skip("there is no nm here")
    scope = ["-g"] if sys.platform == "darwin" else ["-D"]
    printed = subprocess.run(["nm", *scope, option, path], capture_output=True, text=True, check=True).stdout
    names = {line.split()[-1].partition("@")[0] for line in printed.splitlines()}
    return {name.removeprefix("_") for name in names} if sys.platform == "darwin" else names


def exported(path: Path) -> set[str]:
    return symbols(path, "-U" if sys.platform == "darwin" else "--defined-only")


def undefined(path: Path) -> set[str]:
    return symbols(path, "-u")


def test_every_shim_is_built() -> None:
    sources = (mpis.ROOT / "mlxdist" / "core" / "shims").iterdir()
    assert {f"_{path.stem}" for path in sources} == set(SHIMS)
    assert all(path.is_file() for path in SHIMS.values())


def test_the_core_exports_only_its_module() -> None:
    assert exported(CORE) == {"PyInit__core"}


def names_in(library: Path) -> set[str]:
    """What MLX passes to dlsym."""
    return {name.decode() for name in re.findall(rb"\0((?:MPI|ompi_mpi)_\w+)(?=\0)", library.read_bytes())}


@pytest.mark.parametrize("release", [None, *mpis.OLDER_MLX])
def test_the_shim_for_mlx_exports_what_mlx_looks_up(release: str | None) -> None:
    installed = importlib.util.find_spec("mlx")
    folders = installed.submodule_search_locations if installed else ()
    places = [mpis.OLDER_MLX[release] / "mlx"] if release else map(Path, folders or ())
    library = next((path for place in places for path in place.glob("lib/libmlx.*") if path.suffix != ".a"), None)
    if library is None:
        pytest.skip(f"MLX {release or ''} is not installed")
    assert len(names_in(library)) == 30
    assert exported(MLX_LIBMPI) == names_in(library) | {"mlxdist_connect"}


def test_the_shim_for_jax_exports_what_jaxlib_looks_up() -> None:
    installed = importlib.util.find_spec("jaxlib")
    folders = installed.submodule_search_locations if installed else ()
    libraries = [path.read_bytes() for folder in folders or () for path in Path(folder).glob("*.so")]
    names = {
        name.decode()
        for library in libraries
        if b"MPITRAMPOLINE_LIB" in library
        for name in re.findall(rb"\0(MPIX?ABI_\w+|mpi(?:abi|wrapper)_(?:version|export)\w+)(?=\0)", library)
    }
    if not names:
        pytest.skip("there is no jaxlib with an MPI here")
    assert len(names) == 641
    assert exported(JAX_MPIWRAPPER) == names | {"mlxdist_connect"}


@pytest.mark.parametrize("name", SHIMS)
def test_a_shim_needs_neither_the_core_nor_python_nor_mpi(name: str) -> None:
    used = undefined(SHIMS[name])
    assert used & {"__cxa_throw", "calloc", "memcpy"}, "else nothing was read"
    assert not [symbol for symbol in used if re.match(r"_?Py|MPI_|ompi_|core_|group_", symbol)]


def test_the_core_needs_nothing_of_mpi() -> None:
    used = undefined(CORE)
    assert "dlsym" in used
    assert not [symbol for symbol in used if re.match(r"MPI_|ompi_", symbol)]
