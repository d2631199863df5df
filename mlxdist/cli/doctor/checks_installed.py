"""What may be wrong with the packages that are installed for this Python."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import mlxdist
from mlxdist import _core, config
from mlxdist.cli.doctor import environment
from mlxdist.cli.doctor.environment import PACKAGE, Environment
from mlxdist.cli.doctor.finding import WARNING, Finding, pip_install
from mlxdist.mpi import launchers

_ASK_MPI4PY = "import mpi4py; mpi4py.rc.initialize = False; from mpi4py import MPI; print(MPI.Get_library_version())"


def mpi4py(env: Environment) -> Iterator[Finding]:
    """mpi4py opens another libmpi than mlxdist."""
    if not env.library or env.launcher or not environment.is_installed("mpi4py"):
        return
    name = config.MPI4PY_LIBMPI.name
    answer = environment.output_of([sys.executable, "-c", _ASK_MPI4PY], {name: env.library.path, **env.environ})
    theirs = launchers.LibraryInfo("mpi4py", "", answer.partition("\n")[0])
    if (theirs.vendor, theirs.version) != (env.library.vendor, env.library.version):
        opens = f"opens {theirs.vendor} {'.'.join(map(str, theirs.version))}" if answer else "cannot open it"
        fact = f"mlxdist opens {env.library}, mpi4py {opens}: a program cannot use both"
        # From 4.1 on its wheels open whatever the linker finds under the names of PyPI's MPIs.
        build = "--force-reinstall --no-binary mpi4py mpi4py, which builds it with the mpicc on PATH"
        install = pip_install(build if environment.version_of("mpi4py") >= "4.1" else "-U mpi4py")
        told = [variable for variable in (name, config.MPI4PY_MPIABI.name) if env.environ.get(variable)]
        yield Finding(WARNING, fact, f"unset {' '.join(told)}" if told else install)


def copies(env: Environment) -> Iterator[Finding]:
    """There is another mlxdist, which the user may believe to be in use."""
    places = [Path(entry or ".").resolve() / "mlxdist" for entry in sys.path]
    others = {place for place in places if (place / "__init__.py").is_file() and not place.samefile(PACKAGE)}
    for other in sorted(others):
        first = str(PACKAGE.parent)
        listed = env.environ.get("PYTHONPATH", "").split(os.pathsep)
        remedy = "unset PYTHONPATH" if first in listed else f"cd to another folder than {first}"
        yield Finding(WARNING, f"{PACKAGE} is used, and hides {other}", remedy)
    command = env.context.which("mlxdist")
    python = _python_of(command) if command else ""
    if python and os.path.realpath(os.path.dirname(python)) != os.path.realpath(os.path.dirname(sys.executable)):
        fact = f"{command}, which is on PATH, belongs to {python}; this is {sys.executable}"
        yield Finding(WARNING, fact, f"{sys.executable} -m mlxdist")


def _python_of(script: str) -> str:
    """The Python in the first line of a script; empty if there is none."""
    try:
        with open(script, encoding="utf-8", errors="replace") as file:
            interpreter = file.readline(1000).removeprefix("#!").strip()
    except OSError:
        return ""
    return interpreter if os.path.basename(interpreter).startswith("python") else ""


def stale(env: Environment) -> Iterator[Finding]:
    """The compiled part, or the metadata of pip, does not match the Python files."""
    known = environment.version_of("mlxdist")
    if known and known != mlxdist.__version__:
        fact = f"pip installed mlxdist {known}, but the files in {PACKAGE} are {mlxdist.__version__}"
        yield Finding(WARNING, fact, pip_install("--force-reinstall mlxdist"))
    compiled = Path(_core.__file__)
    # in a checkout; an installed package has none of them
    patterns = ("*.pyx", "*.pxd", "compiled/*.pxi", "core/**/*.*", "../include/mlxdist/**/*.h")
    sources = [path for pattern in patterns for path in PACKAGE.glob(pattern)]
    newer = [path.name for path in sources if path.stat().st_mtime > compiled.stat().st_mtime]
    if newer:
        fact = f"{compiled} is older than {', '.join(sorted(newer)[:3])}"
        yield Finding(WARNING, fact, f"make -C {PACKAGE.parent} build")
