"""What is found here: the libmpi that programs will open, the launchers, the versions. Nothing is judged here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import multiprocessing
import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import mlxdist
from mlxdist import config, errors
from mlxdist.cli.launch import mpirun
from mlxdist.mpi import choose, launchers, search
from mlxdist.mpi.processes import Process

PACKAGE = Path(mlxdist.__file__).parent
PACKAGES = ("numpy", "mlx", "mpi4py", "torch", "jax")
LAUNCHERS = ("mpirun", "mpiexec")  # what a user types
_FORK = multiprocessing.get_context("fork")
OPEN_S = 60.0  # for all libraries that are tried
VERSION_TIMEOUT_S = 10  # for a program that prints its version


@dataclass(frozen=True)
class LauncherOnPath:
    """A launcher on PATH, and the library that its ranks would open.

    Attributes:
        path: its path.
        name: its MPI and version.
        libmpi: the library that its ranks open; empty if none belongs to it.
        why_not: why they open none.
    """

    path: str
    name: str
    libmpi: str = ""
    why_not: str = ""

    def __str__(self) -> str:
        return f"{self.path} ({self.name})"


@dataclass(frozen=True)
class Environment:
    """What the checks examine.

    Attributes:
        context: the environment variables, and what started this process.
        ancestors: the processes above this one.
        tried: (place, reason) for everything that was tried before the library and rejected.
        library: the libmpi that programs open; None if none can be used.
        found_via: how it was found.
        mpirun: the launcher that belongs to the library.
        on_path: the launchers on PATH.
        ranks: how many ranks to start.
        hosts: where to start them, if not here.
    """

    context: search.Context
    ancestors: tuple[Process, ...]
    tried: tuple[tuple[str, str], ...]
    library: launchers.LibraryInfo | None
    found_via: str
    mpirun: str
    on_path: tuple[LauncherOnPath, ...]
    ranks: int = 2
    hosts: tuple[str, ...] = ()

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables."""
        return self.context.environ

    @property
    def launcher(self) -> launchers.Launcher | None:
        """The launcher that started this process as a rank."""
        return self.context.launcher


class Chosen(NamedTuple):
    """A libmpi, how it was found, the launcher that belongs to it, and what was tried before."""

    tried: tuple[tuple[str, str], ...] = ()
    library: launchers.LibraryInfo | None = None
    found_via: str = ""
    mpirun: str = ""


def examine(hosts: Sequence[str] = (), ranks: int = 2) -> Environment:
    """The environment of this process, which has opened no MPI."""
    ancestors = launchers.ancestors(os.environ)
    context = search.Context.here(launchers.detect(os.environ, ancestors))
    chosen = _in_child(_choose_for_rank if context.launcher else _choose_for_launch, context)
    on_path = () if context.launcher else tuple(_launchers_on_path(context))
    return Environment(context, ancestors, *chosen, on_path, ranks, tuple(hosts))


def _in_child(function: Callable[[search.Context], Chosen], context: search.Context) -> Chosen:
    """Choose a library in a child process, since opening a broken one may crash, and an open one may spoil the next.

    (Open MPI 4.1.8 cannot be opened after 5.0.11, which has another libucs.)
    """
    read_end, write_end = _FORK.Pipe(duplex=False)
    with read_end:
        child = _FORK.Process(target=lambda: write_end.send(function(context)))
        child.start()
        write_end.close()
        try:
            why = f"it had not opened after {OPEN_S:.0f} s"
            chosen: Chosen = read_end.recv() if read_end.poll(OPEN_S) else Chosen((("a libmpi", why),))
        except EOFError:
            chosen = Chosen((("a libmpi", "it crashed the process that opened it"),))
        child.kill()
        child.join()
    return chosen


def _choose_for_launch(context: search.Context) -> Chosen:
    """The libmpi whose mpirun mlxdist launch would use."""
    tried: list[tuple[str, str]] = []
    try:
        found = mpirun.find(tried)
    except errors.LoadError:
        return Chosen(tuple(tried))
    return Chosen(tuple(tried), found.library, found.found_via, found.path)


def _choose_for_rank(context: search.Context) -> Chosen:
    """The libmpi that ranks of the launcher in ``context`` open."""
    tried: list[tuple[str, str]] = []
    for found, opened, library in choose.usable(context, tried):
        opened.close()
        return Chosen(tuple(tried), library, found.found_via)
    return Chosen(tuple(tried))


def every_libmpi(context: search.Context) -> Iterator[tuple[str, Chosen]]:
    """Each place where programs find a libmpi, whatever the user has chosen, and what was found when it was opened."""
    unnamed = {name: value for name, value in context.environ.items() if name != config.LIBMPI.name}
    seen = set()
    for found in search.candidates(replace(context, environ=unnamed, mapped=())):
        if isinstance(found, search.Candidate):
            named = {**unnamed, config.LIBMPI.name: found.path}
            chosen = _in_child(_choose_for_rank, replace(context, environ=named, mapped=()))
            is_bare = os.sep not in found.path
            place = os.path.realpath(chosen.library.path) if chosen.library else found.path
            if place not in seen and (chosen.library or not is_bare):
                seen.add(place)
                mpirun_of = launchers.own_launcher(chosen.library) if chosen.library else None
                yield found.path, chosen._replace(found_via=found.found_via, mpirun=mpirun_of or "")


# What a launcher prints for --version: pattern, kind of launcher, name
_VERSIONS = (
    (r"Intel\(R\) MPI Library.*?Version (\d[\d.]*)", "intel", "Intel MPI's hydra"),
    (r"HYDRA build details:\s+Version:\s+(\d[\d.]*)", "hydra", "MPICH's hydra"),
    (r"\((?:Open MPI|OpenRTE)\) (\d[\d.]*)", "openmpi", "Open MPI's mpirun"),
)


def _launchers_on_path(context: search.Context) -> Iterator[LauncherOnPath]:
    for command in LAUNCHERS:
        path = context.which(command)
        printed = output_of([path, "--version"], context.environ) if path else ""
        for pattern, kind, name in _VERSIONS:
            if path and (found := re.search(pattern, printed, re.DOTALL)):
                version = tuple(map(int, filter(None, found[1].split("."))))
                yield _launcher_on_path(context, path, f"{name} {found[1]}", kind, version)
                break


def _launcher_on_path(
    context: search.Context, path: str, name: str, kind: str, version: tuple[int, ...]
) -> LauncherOnPath:
    """The launcher at ``path``, with the library that is found in an environment like that of its ranks."""
    kind = "old_hydra" if kind == "hydra" and version < (4, 3) else kind
    launcher = launchers.Launcher(name, kind, 2, 0, "", os.path.realpath(path), version)
    # mpirun sets these for its ranks, whatever this shell has
    environ = {k: v for k, v in context.environ.items() if k not in ("OPAL_PREFIX", "OMPI_VERSION")}
    if kind == "openmpi" and version >= (5,):  # earlier ones do not set it
        environ["OMPI_VERSION"] = ".".join(map(str, version))
    chosen = _in_child(_choose_for_rank, replace(context, environ=environ, launcher=launcher))
    if chosen.library:
        return LauncherOnPath(path, name, chosen.library.path)
    reasons = [why for _, why in chosen.tried]
    return LauncherOnPath(path, name, why_not=next((why for why in reasons if name in why), "".join(reasons[:1])))


def output_of(command: list[str], environ: Mapping[str, str]) -> str:
    """What a short program prints; empty if it cannot be run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=VERSION_TIMEOUT_S, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def is_installed(package: str) -> bool:
    """Whether ``package`` can be found. The packages around it are imported, it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def version_of(package: str) -> str:
    """The version of an installed package by its metadata; empty if there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Of Python, of mlxdist and of the installed packages that it works with."""
    found = {"Python": f"{platform.python_version()} ({sys.executable})"}
    found["mlxdist"] = f"{mlxdist.__version__} ({PACKAGE})"
    return found | {package: version for package in PACKAGES if (version := version_of(package))}


def facts(environment: Environment) -> dict[str, str]:
    """What was found and chosen, as name and value in the report."""
    library, launcher = environment.library, environment.launcher
    found = versions()
    if library:
        found["libmpi"] = library.path
        found["found via"] = environment.found_via
        found["version"] = library.version_string.partition("\n")[0].strip()
        found["ABI family"] = library.family
    if launcher:
        found["launcher"] = f"{launcher.name}, {launcher.variable}={launcher.size}"
    elif library:
        found["launcher"] = environment.mpirun
    for other in environment.on_path:
        found[f"{os.path.basename(other.path)} on PATH"] = f"{other}, its ranks open {other.libmpi or 'no libmpi'}"
    return found
