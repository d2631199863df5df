"""Older minor releases of MLX pass the MLX tests, and those that cannot work are rejected."""

from __future__ import annotations

import os

import mpis
import pytest
from conftest import PYTEST, Ranks, run

TESTS = sorted((mpis.ROOT / "tests" / "parallel").glob("test_mlx*.py"))
# All combinations only with --full, as in `make test-mlx`
USUAL = list(zip(mpis.OLDER_MLX, mpis.FAMILIES, strict=True))


@pytest.mark.parametrize("version", mpis.OLDER_MLX)
def test_parallel_tests(pytestconfig: pytest.Config, representative: mpis.MPI, version: str) -> None:
    path = mpis.OLDER_MLX[version]
    if (version, representative.name) not in USUAL and not pytestconfig.getoption("--full"):
        pytest.skip("make test-mlx: here each release is tested on one MPI")
    if not (path / "mlx").exists():
        pytest.skip(f"MLX {version} is not installed: python tests/mpis.py install")
    command, environ = representative.command(2, *PYTEST, *map(str, TESTS)), representative.environment()
    paths = os.pathsep.join(map(str, (path, mpis.ROOT)))
    finished = run(command, timeout_s=120, PYTHONPATH=paths, MLXDIST_TEST_SIZE="2", **environ)
    assert finished.status == 0, finished.output
    assert " passed" in finished
    assert "ends the process on an error of its libmpi" in finished, "a release that should skip this was tested"


# A module that claims to be MLX and opens nothing.
PRETENDED = """
import sys
from types import ModuleType, SimpleNamespace

mlx = sys.modules["mlx"] = ModuleType("mlx")
mlx.core = sys.modules["mlx.core"] = ModuleType("mlx.core")
mlx.core.__version__ = sys.argv[1]
mlx.core.distributed = SimpleNamespace(
    is_available=lambda *backend: False, init=lambda backend: sys.exit("new enough")
)

import mlxdist
try:
    mlxdist.install()
except mlxdist.Error as error:
    print(error)
"""


@pytest.mark.parametrize("version", ["0.9.1", "0.28.0", "0.29.3", "0.29.3.dev2026"])
def test_too_old(ranks: Ranks, version: str) -> None:
    finished = ranks(None, 1, PRETENDED, version)
    assert f"[install] MLX {version} cannot be told which libmpi to open: pip install -U mlx" in finished
    assert finished.status == 0, finished.output


@pytest.mark.parametrize("version", ["0.29.4", "0.29.4rc1", "0.30.0", "0.32.4.dev2026+1a2b", "1.0"])
def test_new_enough(ranks: Ranks, version: str) -> None:
    assert ranks(None, 1, PRETENDED, version).output == "new enough\n"
