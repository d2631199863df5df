"""Ranks that have different versions of mlxdist are told so when they start; they share nothing and do not hang."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Ranks

import mlxdist
from mlxdist import _core

OTHER = "9" + mlxdist.__version__[1:]

# The last rank imports the copy whose folder is given.
PROGRAM = """
import os, sys
if int(os.environ.get("OMPI_COMM_WORLD_RANK") or os.environ["PMI_RANK"]) == 2:
    sys.path.insert(0, sys.argv[1])
import mlxdist as dist
try:
    dist.init()
    print("not reached")
except dist.MismatchError as error:
    print(f"{error}\\n", end="", flush=True)
print(f"{dist._core.__file__}\\n", end="", flush=True)
"""


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a copy of the package that was compiled with another version, as long as this one."""
    folder = tmp_path_factory.mktemp("other")
    shutil.copytree(mpis.ROOT / "mlxdist", folder / "mlxdist", ignore=shutil.ignore_patterns("core", "__pycache__"))
    library = folder / "mlxdist" / Path(_core.__file__).name
    stamp, other_stamp = (
        (4).to_bytes(4, sys.byteorder) + version.encode().ljust(28, b"\0") for version in (mlxdist.__version__, OTHER)
    )
    compiled = library.read_bytes()
    assert compiled.count(stamp) == 1
    library.write_bytes(compiled.replace(stamp, other_stamp))
    return folder


@pytest.mark.skipif(sys.platform == "darwin", reason="a signed library cannot be changed")
@pytest.mark.parametrize("shared", ["0", "1"])
def test_ranks_of_two_versions(launcher: mpis.MPI, ranks: Ranks, other: Path, shared: str) -> None:
    finished = ranks(launcher, 3, PROGRAM, str(other), timeout_s=30, MLXDIST_NODE=shared)
    assert finished.status == 0, finished.output
    assert "not reached" not in finished
    assert finished.output.count(_core.__file__) == 2
    assert finished.output.count(str(other)) == 1
    error = (
        "[init] the ranks run different builds of mlxdist:\n"
        f"  rank 0, 1: version {mlxdist.__version__}, memory layout 4\n"
        f"  rank 2: version {OTHER}, memory layout 4\n"
        "install the same mlxdist for all ranks\n"
    )
    assert finished.output.count(error) == 3, finished.output
