"""JAX programs whose own collectives run on mlxdist; --full: on each MPI with 2 to 4 ranks, all dtypes, many times."""

from __future__ import annotations

import importlib.util
import re
import sys

import mpis
import pytest
from conftest import Finished, Ranks, run

pytestmark = pytest.mark.skipif(importlib.util.find_spec("jax") is None, reason="JAX is not installed")

LAUNCH = mpis.ROOT / "tests" / "launch"
SHARDED, FAULTS = LAUNCH / "sharded.py", LAUNCH / "jax_faults.py"
# What keeps the launcher from ending the job as soon as a rank dies.
KEEPING = {"openmpi-5": ["--with-ft", "ulfm"], "mpich-5": ["-disable-auto-cleanup"]}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "repeats" not in metafunc.fixturenames:
        return
    full = metafunc.config.getoption("--full")
    here = mpis.chosen(metafunc.config.getoption("--mpi"))
    launchers = [mpi for mpi in here if not mpi.named]
    cases = [(mpi, size, 20, "1") for mpi in launchers for size in (2, 3, 4)] if full else []
    cases += [(mpi, 4, 1, shared) for mpi in launchers for shared in ("0", "2")] if full else []
    cases = cases or [(mpi, 2, 1, "1") for mpi in here if mpi == mpis.TWO[0]]
    ids = [f"{mpi.name}, {size} ranks, MLXDIST_SHARED_MEMORY={shared}" for mpi, size, _, shared in cases]
    metafunc.parametrize(("which", "many", "repeats", "shared"), cases, ids=ids)


def started(mpi: mpis.MPI, size: int, *arguments: str, timeout_s: float = 120, **environ: str) -> Finished:
    """An unchanged program on ranks: nothing in it imports mlxdist."""
    command = mpi.command(size, sys.executable, "-m", "mlxdist", *arguments)
    return run(command, timeout_s=timeout_s, **(mpi.environment() | environ))


def test_results_are_those_of_one_process(which: mpis.MPI, many: int, repeats: int, shared: str) -> None:
    dtypes = ("all",) if repeats > 1 else ()
    finished = started(
        which, many, str(SHARDED), str(repeats), *dtypes, timeout_s=120 * repeats, MLXDIST_SHARED_MEMORY=shared
    )
    assert finished.status == 0, finished.output
    assert finished.output.count("mpi is right") == many


def test_errors_reach_the_program_with_our_text(two: mpis.MPI, pytestconfig: pytest.Config) -> None:
    if two != mpis.TWO[0] and not pytestconfig.getoption("--full"):
        pytest.skip("one will do: the errors are not the MPI's")
    command = two.command(2, sys.executable, "-m", "mlxdist", str(FAULTS))
    command[1:1] = KEEPING[two.name]
    output = run(command, timeout_s=60, **two.environment()).output
    differ = (
        r"\[(all_gather|sum_scatter)\] the ranks differ in call \d+ on this group of 2: rank 0: sum_scatter float32"
    )
    for rank in (0, 1):
        assert re.search(rf"mismatch on rank {rank} after .*{differ} .* rank 1: all_gather float32", output), output
        assert f"afterwards on rank {rank}" in output
        assert f"another group on rank {rank}: no error" in output
    broken = r"\[all_gather\] this group was broken by an earlier error: the ranks differ"
    assert len(re.findall(rf"afterwards on rank \d after .*{broken}", output)) == 2, output
    died = re.search(r"death on rank 0 after ([\d.]+) s: .*\[all_gather\] rank 0 \(pid \d+ on [^)]*\) has died", output)
    assert died, output
    assert float(died[1]) < 5, "rank 1, which is rank 0 of this group, dies 0.2 s after the call"


LATE = """
import jax
import mlxdist.jax
mlxdist.jax.initialize()
"""


def test_jax_first_is_too_late(ranks: Ranks) -> None:
    finished = ranks(None, 1, LATE)
    assert finished.status == 1
    assert "[initialize] jaxlib was loaded before mlxdist.jax" in finished
    assert "or start the program with python -m mlxdist" in finished


UNTOUCHED = """
import mlxdist.jax
import importlib.util, os, sys
assert importlib.util.find_spec("jax") and importlib.util.find_spec("jax"), "a program may only look for it"
assert "jax" not in sys.modules
import jax
assert not os.environ.get("MPITRAMPOLINE_LIB"), "a child process would take mlxdist for its MPI"
assert jax.__spec__.loader.exec_module.__func__ is type(jax.__spec__.loader).exec_module
print(jax.jit(lambda x: x + 1)(1))
"""


def test_jax_without_other_processes_is_as_before(ranks: Ranks) -> None:
    finished = ranks(None, 1, UNTOUCHED)
    assert (finished.status, finished.output) == (0, "2\n")
