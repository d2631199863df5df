"""`import mlxdist` is quick, and opens neither a libmpi nor a framework."""

from __future__ import annotations

import resource
import subprocess
import sys

import mpis
import pytest
from conftest import Ranks

PROGRAM = """
import os, sys
before = dict(os.environ)
import mlxdist
loaded = {name.split(".")[0] for name in sys.modules}
frameworks = {"mlx", "torch", "jax", "cupy", "tensorflow", "mpi4py", "ml_dtypes"} & loaded
assert not frameworks, frameworks
assert dict(os.environ) == before
assert sys.excepthook is sys.__excepthook__
if os.path.exists("/proc/self/maps"):
    opened = {line.split()[-1] for line in open("/proc/self/maps") if "libmp" in line or "libfabric" in line}
    assert not opened, opened
assert str(mlxdist.info()).split()[:3] == ["backend", "not", "started"], mlxdist.info()
print("quiet\\n", end="")
"""


def test_nothing_is_opened(mpi: mpis.MPI, ranks: Ranks) -> None:
    """Under a launcher, too, MPI starts with init()."""
    finished = ranks(mpi, 2, PROGRAM)
    assert (finished.status, finished.output) == (0, "quiet\n" * 2)


def test_nothing_is_opened_alone(ranks: Ranks) -> None:
    finished = ranks(None, 1, PROGRAM)
    assert (finished.status, finished.output) == (0, "quiet\n")


SUBINTERPRETER = """
import sys
try:
    from _interpreters import create, exec as run
    kind = sys.argv[2:]
except ImportError:  # before Python 3.13: only interpreters that share the GIL
    from _xxsubinterpreters import create, run_string as run
    kind = []
def main():
    try:
        import mlxdist
        assert mlxdist.all_sum(1) == 1
        return "works"
    except ImportError as error:
        return str(error)
def other():
    try:
        failed = run(create(*kind), "import mlxdist; assert mlxdist.all_sum(1) == 1")
        return failed.msg if failed else "works"
    except RuntimeError as error:
        return str(error)
said = [main(), other()] if sys.argv[1] == "main" else [other(), main()]
assert said.count("works") == 1, said
assert said[0] == "works" or sys.argv[1] == "other", said
told = min(said, key=lambda text: text == "works")
assert "one interpreter of a process can import mlxdist" in told and "import it in the main one first" in told, told
assert "reinstall" not in told, told
print("refused")
"""


@pytest.mark.parametrize("kind", ["legacy", "isolated"])
@pytest.mark.parametrize("first", ["main", "other"])
def test_a_second_interpreter_is_told_why(ranks: Ranks, first: str, kind: str) -> None:
    finished = ranks(None, 1, SUBINTERPRETER, first, kind, PYTHONWARNINGS="ignore")
    assert (finished.status, finished.output) == (0, "refused\n")


LIMIT = 0.6  # times NumPy's own import: a ratio, since a busy machine slows both


def used_ms(code: str) -> float:
    """CPU time of a Python program: on a busy machine more meaningful than the clock."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(mpis.ROOT)})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e3


def test_time_beyond_numpys() -> None:
    """The minimum of several alternating runs, so that other load on the machine affects both."""
    runs = [(used_ms("import numpy"), used_ms("import numpy, mlxdist")) for _ in range(7)]
    numpy_ms, both_ms = map(min, zip(*runs, strict=True))
    print(f"import numpy: {numpy_ms:.1f} ms, import mlxdist beyond it: {both_ms - numpy_ms:.1f} ms")
    assert both_ms - numpy_ms < LIMIT * numpy_ms
