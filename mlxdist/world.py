"""The world of ranks: ``init`` starts it once, ``info`` reports what was started, ``finalize`` ends it."""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from types import TracebackType
from typing import Any

from mlxdist import _core, config, errors
from mlxdist.groups import Group as Group
from mlxdist.groups import GroupLike as GroupLike
from mlxdist.mlx import backend
from mlxdist.mpi import choose, communicators, launchers

OURS = ("any", "mpi")
MLX_BACKENDS = ("ring", "nccl", "jaccl")
# MPICH's hydra drops output of a rank that it has not forwarded yet when the job is aborted (5.0.2).
PASS_ON_S = 0.2
START_S = 20.0  # the shortest limit of MPI_Init, since it ends the process: programs are loaded and connected in it


@dataclass
class Info:
    """What was loaded, from where and why; prints as a report.

    Attributes:
        backend: "mpi", "alone" or "not started".
        rank, size: this process's rank in the world, and how many ranks there are.
        launcher: what started the ranks, and the variable with their number; "none" if this process was not launched.
        libmpi: path of the library.
        found_via: the step of the search that found it.
        family: its ABI: "openmpi", "mpich" or "standard".
        version: what the library reports as its version.
        threads: the thread level that MPI provides.
        initialized_by: who called MPI_Init: "mlxdist", or "another" package such as mpi4py.
        kernels: the instruction set used for sums.
        shared_memory: how many ranks share this host's memory, or why they do not.
        tried: (place, reason) of each place that was searched before and not used.
    """

    backend: str = "not started"
    rank: int = 0
    size: int = 1
    launcher: str = "none"
    libmpi: str = ""
    found_via: str = ""
    family: str = ""
    version: str = ""
    threads: str = ""
    initialized_by: str = ""
    kernels: str = ""
    shared_memory: str = ""
    tried: list[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        lines = [
            f"{name.replace('_', ' '):14} {value}"
            for name, value in vars(self).items()
            if name != "tried" and value != ""
        ]
        lines += [f"{'tried':14} {place}: {why}" for place, why in self.tried]
        return "\n".join(lines)


_info = Info()
_lock = threading.RLock()
_wrong_world = ""
_is_starting = False
_ends_at_exit = False
_launch_pipe: int | None = None
_is_fork = False  # this process was forked after mlxdist was imported


def timeout_or_default_s(timeout_s: float | None) -> float:
    """The timeout that was passed, or the one from the environment; 0 for none."""
    given = timeout_s if timeout_s is not None else config.TIMEOUT_S.get()
    name = "timeout_s" if timeout_s is not None else config.TIMEOUT_S.name
    try:
        timeout_s = float(given)
    except (TypeError, ValueError, OverflowError):
        timeout_s = math.nan
    if not 0 <= timeout_s < math.inf or isinstance(given, bool):
        raise ValueError(f"[init] {name}={given!r} is not a timeout: pass seconds, 0 for no timeout")
    return timeout_s


def _sharing_ranks() -> int:
    given = config.SHARED_MEMORY.get()
    if not given.isdecimal():
        raise ValueError(f"[init] {config.SHARED_MEMORY.name}={given!r}: set 0, 1, or the number of ranks that share")
    return int(given)


def _shared_memory() -> str:
    if config.SHARED_MEMORY.get() == "0":
        return f"disabled by {config.SHARED_MEMORY.name}=0"
    ranks, why_not = _core.local_size()
    return f"unavailable: {why_not}" if why_not else f"{ranks} rank{'s' if ranks > 1 else ''} on this host"


def _watch_start(timeout_s: float, quiet: bool) -> None:
    """Say what the start waits for, and end the process at the limit or with Ctrl-C while it is in MPI_Init."""
    try:
        _core.await_start(max(timeout_s, START_S) if timeout_s else 0, quiet)
    except (errors.TimeoutError, KeyboardInterrupt) as error:
        print(f"mlxdist: {error}: this process is ended, since nothing can interrupt MPI_Init", file=sys.stderr)
        flush_output()
        time.sleep(PASS_ON_S)
        os._exit(128 + signal.SIGINT if isinstance(error, KeyboardInterrupt) else 1)


@contextlib.contextmanager
def _watched_start(timeout_s: float, quiet: bool) -> Iterator[None]:
    """Have a thread watch a start on this one, which may wait in MPI_Init for other ranks."""
    watch = threading.Thread(target=_watch_start, args=(timeout_s, quiet), daemon=True)
    watch.start()
    try:
        yield
    finally:
        _core.end_start()
        watch.join()


def _start_mpi(chosen: choose.Usable, launcher: launchers.Launcher | None, timeout_s: float, comm: Any) -> Group:
    global _wrong_world
    library, quiet, share = chosen.library, config.QUIET.get() == "1", _sharing_ranks()
    # Two of the ranks say what they wait for: one of them may be the one that is awaited.
    is_other = launcher is not None and launcher.rank is not None and launcher.rank > 1
    with choose.environment(library), _watched_start(timeout_s, quiet or is_other):
        group: Group = _core.start(
            chosen.opened,
            Group,
            timeout_s=timeout_s,
            quiet=quiet,
            share=share,
            comm=0 if comm is None else communicators.handle_of(comm, library.version_string),
        )
    os.environ[config.RANK_PID.name] = str(os.getpid())
    # An mpi4py that is imported later must not open a second MPI, whatever it was told before.
    os.environ[config.MPI4PY_LIBMPI.name] = library.path
    os.environ.pop(config.MPI4PY_MPIABI.name, None)
    _info.backend, _info.libmpi, _info.found_via = "mpi", library.path, chosen.found.found_via
    _info.family, _info.version, _info.threads = library.family, library.version_string, _core.threads()
    _info.initialized_by = "mlxdist" if _core.initialized_by_us() else "another"
    _info.shared_memory = _shared_memory()
    wrong = launcher and launchers.wrong_world(launcher, library, group.size())
    if wrong and comm is None:
        _core.finish()
        _wrong_world = f"[init] {wrong}"
        raise errors.LoadError(_wrong_world)
    return group


def _start(strict: bool, timeout_s: float, comm: Any) -> Group:
    global _launch_pipe
    _info.kernels = _core.use_kernels(config.KERNELS.get())
    context = choose.this_process()
    if context.launcher is not None and _is_fork:
        raise errors.LoadError(_FORKED)
    if context.launcher is not None:
        _info.launcher = f"{context.launcher.name}, {context.launcher.variable}={context.launcher.size}"
    _info.tried = []
    chosen = choose.libmpi(context, strict, _info.tried)
    group: Group
    try:
        group = _start_mpi(chosen, context.launcher, timeout_s, comm) if chosen else _core.start(None, Group)
    except errors.LoadError as error:
        if _wrong_world or comm is not None or chosen is None or not choose.may_run_alone(context, strict):
            raise
        _info.tried.append((f"{chosen.library.path} ({chosen.found.found_via})", str(error)))
        group = _core.start(None, Group)
    end_at_exit()
    if not _info.libmpi:
        _info.backend = "alone"
    _info.rank, _info.size = group.rank(), group.size()
    if group.size() > 1:
        _launch_pipe = _take_launch_pipe()
    if group.size() > 1 and config.ABORT.get() != "0":
        sys.excepthook = _Abort(sys.excepthook)
    return group


_FORKED = "[init] this process was forked from a rank, and only the rank may communicate: call init() in the rank"


def _after_fork() -> None:
    global _is_fork, _lock
    _is_fork = True
    _lock = threading.RLock()  # another thread may have held it in init()


os.register_at_fork(after_in_child=_after_fork)


def flush_output() -> None:
    """Flush stdout and stderr."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # closed, or None
            stream.flush()


def _take_launch_pipe() -> int | None:
    """The pipe by which mlxdist launch learns what this rank is about to do; children do not inherit it."""
    value = os.environ.pop(config.LAUNCH_PIPE.name, "")
    try:
        descriptor, inode = map(int, value.split(":"))
        status = os.fstat(descriptor)
    except (ValueError, OSError):  # not started by mlxdist launch, or by a program that closes descriptors
        return None
    if not stat.S_ISFIFO(status.st_mode) or status.st_ino != inode:  # the number was used again
        return None
    os.set_inheritable(descriptor, False)
    return descriptor


# What is announced in the pipe: the rank communicates no more, or it aborts the job. In capitals after the error of a
# call, which may come from another rank.
LEAVES, ABORTS = b"l", b"a"


def _announce(what: bytes) -> None:
    """Tell mlxdist launch."""
    if _launch_pipe is not None:
        with contextlib.suppress(OSError):  # its reader has ended
            os.write(_launch_pipe, what)


class _Abort:
    """An uncaught exception on one rank ends the job, or the other ranks would wait for it forever."""

    def __init__(self, earlier: Any) -> None:
        self.earlier = earlier

    def __call__(self, kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
        try:
            self.earlier(kind, value, traceback)
        finally:
            if not _core.is_finished():
                self.end(kind)

    def end(self, kind: type[BaseException]) -> None:
        """Say who failed, and end the job with whatever has been printed."""
        print(
            f"mlxdist: rank {_info.rank} of {_info.size} failed with {kind.__name__}, so the job is ended "
            f"({config.ABORT.name}=0 lets the other ranks go on)",
            file=sys.stderr,
        )
        flush_output()
        _announce(ABORTS.upper() if issubclass(kind, errors.Error) else ABORTS)
        time.sleep(PASS_ON_S)
        _core.abort(1)


def is_available(backend: str = "any") -> bool:
    """Whether ``init(backend=backend)`` can work.

    "any" always can, since a process may run alone; "mpi" can if a libmpi is installed where mlxdist searches. Other
    names are False, as in MLX. Opens nothing.

    Example:
        >>> mlxdist.is_available()
        True
    """
    if backend != "mpi":
        return backend == "any"
    return bool(_info.libmpi) or choose.is_any_installed()


def _started(call: str, strict: bool, timeout_s: float, comm: Any = None) -> tuple[Group, bool]:
    """The world, of the processes of a communicator if it has not been started, and whether this started it."""
    global _is_starting
    if _is_starting:
        raise errors.Error(
            f"[{call}] a signal handler cannot call it while its thread is in init(): call it afterwards"
        )
    if _core.is_forked():
        raise errors.LoadError(_FORKED)
    if _wrong_world:
        raise errors.LoadError(_wrong_world)
    if _core.is_finished():
        raise ValueError(
            f"[{call}] mlxdist has been finalized, and a process can start MPI only once: "
            "call finalize() last, or not at all"
        )
    world = _core.world()
    if world is not None:
        return world, False  # type: ignore[return-value]
    _is_starting = True
    try:
        started = _start(strict, timeout_s, comm)
    finally:
        _is_starting = False
    _core.raise_interruption()
    return started, True


def init(strict: bool = False, backend: str = "any", *, timeout_s: float | None = None) -> Group:
    """Start MPI, and return the group of all ranks that the launcher started. Later calls return the same object.

    Without a launcher this is a group of one, and MPI is not opened. With a launcher, the group has as many ranks as it
    started: if MPI disagrees that is an error, rather than every process silently becoming a world of its own.

    Args:
        strict: raise LoadError instead of running alone.
        backend: "any" or "mpi", which mean the same here.
        timeout_s: seconds without progress that a call on the world waits for other ranks before it raises
            TimeoutError; 0 waits forever. Groups split from the world afterwards inherit it. The default is the
            environment's, else 0. In a later call it replaces the world's timeout; without it, that stays as it is.
            Nothing can interrupt MPI_Init: where ranks are missing, the process prints what is awaited and ends with
            status 1, after 20 seconds at least; with Ctrl-C it ends with status 130. Where MPI is initialized, init()
            itself raises TimeoutError after 8 seconds at least, or KeyboardInterrupt, and may be called again.

    Raises:
        LoadError: no libmpi belongs to the launcher, or the world has a different size than the launcher promised; the
            message lists what was tried. Also when strict and alone, and in a child process of a rank.
        ValueError: the backend or the timeout is invalid, or finalize() has been called.
        TimeoutError: MPI is initialized, but not all ranks have called init().
        Error: called by a signal handler while its thread is in init().

    Example:
        >>> group = mlxdist.init()
        >>> group.rank(), group.size()
        (0, 1)
    """
    if backend in MLX_BACKENDS:
        raise ValueError(f"[init] backend={backend!r} is MLX's own: use mx.distributed for it, or backend='mpi' here")
    if backend not in OURS:
        raise ValueError(f"[init] backend={backend!r} is unknown: use 'any' or 'mpi'")
    checked_s = timeout_or_default_s(timeout_s)
    with _lock:
        group, is_new = _started("init", strict, checked_s)
        if not is_new and timeout_s is not None:
            _core.set_timeout(group, checked_s)
        if strict and _info.backend == "alone":
            raise errors.LoadError("[init] strict=True, but this process runs alone: start it with mpirun")
        return group


def group(ranks: Sequence[int] | Any) -> Group:
    """The group of some ranks of the world, or of the processes of a communicator of mpi4py.

    Args:
        ranks: as for ``Group.group``: ranks of the world, in the order of the new group. Or a communicator: if the
            world has not been started, its processes become the world of each, and ``init()`` returns it from then on;
            otherwise it must have ranks of the world only. Each of its processes calls it.

    So one of the programs of ``mpirun -n 2 a.py : -n 3 b.py`` can use mlxdist although the other does not know it.

    Raises:
        TypeError: ranks is neither a sequence of ints nor a communicator.
        ValueError: the list is as ``Group.group`` says; or the communicator is null, was freed, is an
            intercommunicator, or has a process that is not in the world; or MPI has ended.
        LoadError: as for ``init()``, or mpi4py uses another libmpi.
        MismatchError, PeerError, TimeoutError: as for ``Group.group``.

    Example:
        >>> mlxdist.group([0]).rank() if mlxdist.init().rank() == 0 else None
        0
        >>> from mpi4py import MPI  # doctest: +SKIP
        >>> group = mlxdist.group(MPI.COMM_WORLD.Split(MPI.COMM_WORLD.Get_attr(MPI.APPNUM)))  # doctest: +SKIP
    """
    if not communicators.is_one(ranks):
        return init().group(ranks)
    communicators.check(ranks)
    with _lock:
        world, is_new = _started("group", False, timeout_or_default_s(None), ranks)
    if is_new:
        return world
    if _info.backend == "alone":
        raise ValueError("[group] this process runs alone, without MPI: pass the communicator before init() is called")
    members = _core.ranks_of(world, communicators.handle_of(ranks, _info.version))
    if None in members:
        raise ValueError("[group] the communicator has processes that are not in the world: pass it before init()")
    return world.group([rank for rank in members if rank is not None])


def finalize() -> None:
    """End all communication, and MPI too if mlxdist initialized it. Runs automatically when the program exits.

    If one rank calls it, all must; each waits for the other ranks and for its own calls in progress. A call
    in which another thread still waits for a rank after half a second raises ValueError there; when the program
    exits, a daemon thread ends in it quietly. Operations raise ValueError afterwards. Calling it again does
    nothing. Groups may be deleted before or after. Where a rank has died or a call has been given up, MPI itself is
    not finalized, on any rank.

    Raises:
        TimeoutError: another rank, or another thread of this one, is still busy when the world's timeout passes.
        PeerError: a rank has died, or does not finalize MPI because it has given up a call.
        Error: called by a signal handler while its thread is in another call.

    Example:
        >>> mlxdist.finalize()
    """
    # A fork lacks MLX's threads and would wait for them forever; a signal handler within a call will be refused.
    if not (_is_fork or _core.is_finished() or _core.is_waiting()):
        world = _core.world()
        _announce(LEAVES.upper() if world is not None and _core.is_broken(world) else LEAVES)
        backend.finish()
    try:
        _core.finish()
    except errors.Error:
        _announce(LEAVES.upper())
        raise


def end_at_exit() -> None:
    """Finalize when the program exits, after what registers itself from now on has ended."""
    global _ends_at_exit
    if not _ends_at_exit:
        _ends_at_exit = True
        atexit.register(_finalize_at_exit)


def _finalize_at_exit() -> None:
    if _core.world() is None:
        return
    _core.begin_exit()
    try:
        finalize()
    except errors.PeerError:
        if _launch_pipe is None:  # else mlxdist launch says who has died
            raise


def info() -> Info:
    """What was loaded, from where and why; prints as a report.

    Example:
        >>> print(mlxdist.info())
    """
    return replace(_info, tried=list(_info.tried))
