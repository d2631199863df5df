"""What is here: the libmpi that programs will open, what starts their ranks, which versions; nothing is judged."""

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
from mlxdist import errors
from mlxdist.cli.launch import mpirun
from mlxdist.mpi import choose, launchers, search

PACKAGE = Path(mlxdist.__file__).parent
PACKAGES = ("numpy", "mlx", "mpi4py", "torch", "jax")
STARTERS = ("mpirun", "mpiexec")  # what a user types
_FORK = multiprocessing.get_context("fork")
PATIENCE_S = 10  # for a program that only says its version


@dataclass(frozen=True)
class Starter:
    """A launcher on PATH, and what its ranks would open.

    Attributes:
        path: where it lies.
        name: whose it is, with its version.
        libmpi: the library that its ranks open, empty if none belongs to it.
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
    """What the checks look at.

    Attributes:
        context: the environment, and who started this process.
        ancestors: the processes above this one.
        tried: (place, why it did not do) of all that was looked at before the library.
        library: the libmpi that programs open; None if there is none that does.
        found_via: the way to it.
        mpirun: the launcher that belongs to the library.
        starters: the launchers on PATH.
        ranks: how many are wanted.
        hosts: where ranks are wanted, if not here.
    """

    context: search.Context
    ancestors: tuple[launchers.Process, ...]
    tried: tuple[tuple[str, str], ...]
    library: launchers.Library | None
    found_via: str
    mpirun: str
    starters: tuple[Starter, ...]
    ranks: int = 2
    hosts: tuple[str, ...] = ()

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment variables."""
        return self.context.environ

    @property
    def launcher(self) -> launchers.Launcher | None:
        """What started this process as a rank."""
        return self.context.launcher


class Chosen(NamedTuple):
    """A libmpi, with the way to it and the launcher that belongs to it; and what was tried before."""

    tried: tuple[tuple[str, str], ...] = ()
    library: launchers.Library | None = None
    found_via: str = ""
    mpirun: str = ""


def look(hosts: Sequence[str] = (), ranks: int = 2) -> Environment:
    """What this process finds, that has opened no MPI."""
    ancestors = launchers.ancestors()
    context = search.Context.here(launchers.detect(os.environ, ancestors))
    chosen = _apart(_of_launcher if context.launcher else _of_own, context)
    starters = () if context.launcher else tuple(_starters(context))
    return Environment(context, ancestors, *chosen, starters, ranks, tuple(hosts))


def _apart(function: Callable[[search.Context], Chosen], context: search.Context) -> Chosen:
    """Open libraries in a process of its own: one that is broken may end it, and what stays open spoils the next.

    (Open MPI 4.1.8 cannot be opened after 5.0.11, which has another libucs.)
    """
    here, there = _FORK.Pipe(duplex=False)
    with here:
        other = _FORK.Process(target=lambda: there.send(function(context)))
        other.start()
        there.close()
        try:
            chosen: Chosen = here.recv()
        except EOFError:
            chosen = Chosen((("a libmpi", "it ended the process that opened it"),))
        other.join()
    return chosen


def _of_own(context: search.Context) -> Chosen:
    """The libmpi whose mpirun would be taken, here where no launcher is."""
    tried: list[tuple[str, str]] = []
    try:
        found = mpirun.find(tried)
    except errors.LoadError:
        return Chosen(tuple(tried))
    return Chosen(tuple(tried), found.library, found.found_via, found.path)


def _of_launcher(context: search.Context) -> Chosen:
    """The libmpi that ranks of the launcher in ``context`` open."""
    tried: list[tuple[str, str]] = []
    for found, opened, library in choose.usable(context, tried):
        opened.close()
        return Chosen(tuple(tried), library, found.found_via)
    return Chosen(tuple(tried))


# How a launcher says who it is: whose it is in KINDS of launchers, and its version.
_SAYS = (
    (r"Intel\(R\) MPI Library.*?Version (\d[\d.]*)", "intel", "Intel MPI's hydra"),
    (r"HYDRA build details:\s+Version:\s+(\d[\d.]*)", "hydra", "MPICH's hydra"),
    (r"\((?:Open MPI|OpenRTE)\) (\d[\d.]*)", "openmpi", "Open MPI's mpirun"),
)


def _starters(context: search.Context) -> Iterator[Starter]:
    for name in STARTERS:
        path = context.which(name)
        said = words([path, "--version"], context.environ) if path else ""
        for pattern, kind, whose in _SAYS:
            if path and (found := re.search(pattern, said, re.DOTALL)):
                version = tuple(map(int, filter(None, found[1].split("."))))
                yield _starter(context, path, f"{whose} {found[1]}", kind, version)
                break


def _starter(context: search.Context, path: str, name: str, kind: str, version: tuple[int, ...]) -> Starter:
    """What ranks of the launcher at ``path`` would find, from what it would tell them."""
    kind = "old_hydra" if kind == "hydra" and version < (4, 3) else kind
    launcher = launchers.Launcher(name, kind, 2, 0, "", os.path.realpath(path), version)
    # its own for its ranks, whatever this shell has
    told = {k: v for k, v in context.environ.items() if k not in ("OPAL_PREFIX", "OMPI_VERSION")}
    if kind == "openmpi" and version >= (5,):  # earlier ones do not tell
        told["OMPI_VERSION"] = ".".join(map(str, version))
    chosen = _apart(_of_launcher, replace(context, environ=told, launcher=launcher))
    if chosen.library:
        return Starter(path, name, chosen.library.path)
    reasons = [why for _, why in chosen.tried]
    return Starter(path, name, why_not=next((why for why in reasons if name in why), "".join(reasons[:1])))


def words(command: list[str], environ: Mapping[str, str]) -> str:
    """What a short program says; nothing if it cannot be run."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=PATIENCE_S, env=dict(environ)
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def is_installed(package: str) -> bool:
    """Whether ``package`` can be found; what is above it is imported, itself it is not."""
    try:
        return importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        return False


def version_of(package: str) -> str:
    """What the metadata of an installed package say; empty if there are none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def versions() -> dict[str, str]:
    """Of Python, of mlxdist and of the packages that it works with, where they are installed."""
    found = {"Python": f"{platform.python_version()} ({sys.executable})"}
    found["mlxdist"] = f"{mlxdist.__version__} ({PACKAGE})"
    return found | {package: version for package in PACKAGES if (version := version_of(package))}


def facts(environment: Environment) -> dict[str, str]:
    """What was found and chosen, by what a report calls it."""
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
    for starter in environment.starters:
        found[f"{os.path.basename(starter.path)} on PATH"] = (
            f"{starter}, its ranks open {starter.libmpi or 'no libmpi'}"
        )
    return found
