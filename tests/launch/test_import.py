"""`import mlxdist` is quick, and opens neither a libmpi nor a framework."""

from __future__ import annotations

import resource
import subprocess
import sys

import mpis
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
try:
    from _interpreters import create, exec as run
except ImportError:  # before Python 3.13
    from _xxsubinterpreters import create, run_string as run
import mlxdist
try:
    failed = run(create(), "import mlxdist")
    text = failed.msg
except RuntimeError as error:
    text = str(error)
assert "one interpreter of a process can import mlxdist" in text, text
assert "reinstall" not in text, text
print("refused")
"""


def test_a_subinterpreter_is_told_why(ranks: Ranks) -> None:
    finished = ranks(None, 1, SUBINTERPRETER, PYTHONWARNINGS="ignore")
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
