"""Tests in this folder hold at any number of ranks, and all ranks run them together:

    python tests/mpis.py run openmpi-5 4 python -m pytest tests/parallel

The first failure on any rank is printed with its rank and ends the job, since the other ranks would wait for it.
If set, MLXDIST_TEST_SIZE and MLXDIST_TEST_LIBMPI say what the size of the world and its library must be, and
MLXDIST_TEST_KERNELS is a directory with kernels that MLX compiled in an earlier run.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import tempfile
from collections.abc import Iterator

import pytest

import mlxdist as dist
from mlxdist import _core

group = dist.init()
# MLX compiles in a directory below TMPDIR; ranks that do so at the same time can read half-written files (MLX 0.32.4).
private = tempfile.TemporaryDirectory(prefix="mlxdist-test-")
kernels = os.path.join(os.environ.get("MLXDIST_TEST_KERNELS", private.name), f"rank-{group.rank()}")
os.makedirs(kernels, exist_ok=True)
os.environ["TMPDIR"], tempfile.tempdir = kernels, private.name
TIMEOUT_S = 120


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    if group.rank():
        config.pluginmanager.unregister(name="terminalreporter")


def pytest_report_header() -> str:
    return f"{dist.info()}"


def pytest_sessionstart() -> None:
    size, libmpi = os.environ.get("MLXDIST_TEST_SIZE"), os.environ.get("MLXDIST_TEST_LIBMPI")
    if size is not None and group.size() != int(size):
        pytest.exit(f"the world has {group.size()} ranks, not {size}", 3)
    if libmpi is not None and not (dist.info().libmpi and os.path.samefile(dist.info().libmpi, libmpi)):
        pytest.exit(f"{dist.info().libmpi} is loaded, not {libmpi}", 3)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.failed and group.size() > 1:
        print(f"rank {group.rank()} of {group.size()}: {item.nodeid}\n{report.longreprtext}", file=sys.__stderr__)
        sys.__stderr__.flush()
        _core.abort(1)


@pytest.fixture(autouse=True)
def all_ranks_begin_and_end_together() -> Iterator[None]:
    faulthandler.dump_traceback_later(TIMEOUT_S, exit=True, file=sys.__stderr__)
    dist.barrier()
    yield
    dist.barrier()
    faulthandler.cancel_dump_traceback_later()


@pytest.fixture
def world() -> dist.Group:
    return group
