"""The C sources compile without a warning, and so does each header alone, with every installed compiler."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mpis
import pytest

CORE, INCLUDE = mpis.ROOT / "mlxdist" / "core", mpis.ROOT / "include"
STRICT = ("-Wall", "-Wextra", "-Werror", "-fsyntax-only", "-D_GNU_SOURCE", f"-I{INCLUDE}")
C = (("gcc", "-std=c11"), ("clang", "-std=c11"))
CXX = (("g++", "-std=c++17"), ("clang++", "-std=c++17"))
HEADERS = sorted((INCLUDE / "mlxdist").rglob("*.h"))
HEADERS_FOR_CXX = [header for header in HEADERS if 'extern "C"' in header.read_text()]

each_c_compiler = pytest.mark.parametrize("compiler", C, ids=lambda compiler: compiler[0])
each_cxx_compiler = pytest.mark.parametrize("compiler", CXX, ids=lambda compiler: compiler[0])


def each(paths: list[Path]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("path", paths, ids=lambda path: path.name)


def assert_compiles(compiler: tuple[str, str], path: Path, *options: str) -> None:
    name, standard = compiler
    if shutil.which(name) is None:
        pytest.skip(f"there is no {name} here")
    command = [name, standard, *STRICT, *options, str(path)]
    finished = subprocess.run(command, capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr
    assert not finished.stderr


@each(sorted(CORE.rglob("*.c")))
@each_c_compiler
def test_c(compiler: tuple[str, str], path: Path) -> None:
    assert_compiles(compiler, path)


@each(sorted(CORE.rglob("*.cpp")))
@each_cxx_compiler
def test_cxx(compiler: tuple[str, str], path: Path) -> None:
    assert_compiles(compiler, path)


@each(HEADERS)
@each_c_compiler
def test_headers_alone_in_c(compiler: tuple[str, str], path: Path, tmp_path: Path) -> None:
    """Twice, to test the include guard too."""
    source = tmp_path / "alone.c"
    source.write_text(f'#include "{path.relative_to(INCLUDE)}"\n' * 2 + "int main(void) { return 0; }\n")
    assert_compiles(compiler, source)


@each(HEADERS_FOR_CXX)
@each_cxx_compiler
def test_headers_alone_in_cxx(compiler: tuple[str, str], path: Path, tmp_path: Path) -> None:
    source = tmp_path / "alone.cpp"
    source.write_text(f'#include "{path.relative_to(INCLUDE)}"\n' * 2 + "int main() { return 0; }\n")
    assert_compiles(compiler, source)


def test_some_headers_are_for_cxx() -> None:
    assert {"types.h", "kernels.h", "core.h", "mlx_libmpi.h"} <= {header.name for header in HEADERS_FOR_CXX}
