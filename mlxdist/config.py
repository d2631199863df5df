"""Every environment variable that mlxdist reads or sets: name, default and meaning."""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(frozen=True)
class Variable:
    """An environment variable; ``get`` reads it at the moment of the call.

    Attributes:
        name: what it is called.
        default: its value if it is not set or empty.
        meaning: one line for the table of variables.
        former_names: what it was called before; they still work, but ``name`` wins.
    """

    name: str
    default: str
    meaning: str
    former_names: tuple[str, ...] = ()

    def get(self, environ: Mapping[str, str] | None = None) -> str:
        """The value in ``environ`` (``os.environ`` by default), else the default."""
        environ = os.environ if environ is None else environ
        return next(filter(None, map(environ.get, (self.name, *self.former_names))), self.default)


LIBMPI = Variable("MLXDIST_LIBMPI", "", "path of the libmpi to open, instead of searching for one")
ABORT = Variable("MLXDIST_ABORT", "1", "0: an uncaught exception on one rank does not end the job")
MAX_COUNT = Variable("MLXDIST_MAX_COUNT", str(2**31 - 1), "elements per MPI call; longer arrays are sent in pieces")
CUDA_AWARE = Variable(
    "MLXDIST_CUDA_AWARE", "", "1: libmpi reads GPU memory itself, 0: it does not; by default libmpi is asked"
)
TIMEOUT_S = Variable("MLXDIST_TIMEOUT_S", "0", "seconds that a call waits for other ranks; 0: no timeout")
QUIET = Variable("MLXDIST_QUIET", "0", "1: no lines on stderr about calls that have waited for 10 s, 20 s, 40 s ...")
CHECK = Variable("MLXDIST_CHECK", "1", "without effect; once, 0: hosts do not compare their calls")
SHARED_MEMORY = Variable(
    "MLXDIST_SHARED_MEMORY",
    "1",
    "0: ranks of a host do not communicate through shared memory; 2 or more: so many do, as if those were a host",
    ("MLXDIST_NODE",),
)
KERNELS = Variable("MLXDIST_KERNELS", "", "plain, avx2, avx512 or neon: instruction set for sums; by default the best")
RANK_PID = Variable(
    "MLXDIST_RANK_PID", "", "set by init() to the rank's pid, so that its child processes know they are not ranks"
)
MPI4PY_LIBMPI = Variable(
    "MPI4PY_LIBMPI", "", "set by init(): the library that mpi4py (4.1 or later) opens when it is imported later"
)
MPI4PY_MPIABI = Variable("MPI4PY_MPIABI", "", "removed by init(): the family of MPI that mpi4py opens")
MLX_LIBMPI = Variable("MLX_MPI_LIBNAME", "", "set by install(): the library that MLX opens as its libmpi")
JAX_MPI = Variable(
    "MPITRAMPOLINE_LIB",
    "",
    "set while jax is imported, if mlxdist.jax was before: the library that jaxlib opens as MPI",
)
JAX_COLLECTIVES = Variable("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "", "JAX's own: gloo, instead of mlxdist")
JAX_COORDINATOR = Variable("JAX_COORDINATOR_ADDRESS", "", "JAX's own: its coordinator, instead of one on rank 0")
TMPDIR = Variable(
    "TMPDIR", "", "set by python -m mlxdist: where MLX's CPU backend puts what it compiles, for each rank"
)
LAUNCH = Variable("MLXDIST_LAUNCH", "", "set by mlxdist launch: where its ranks report to, as JSON")
LAUNCH_PIPE = Variable(
    "MLXDIST_LAUNCH_PIPE", "", "set by mlxdist launch: descriptor and inode of a pipe for announcements"
)
_FOR_TORCH = 'set by init_process_group("mlxdist"), unless it is set: '
RANK = Variable("RANK", "", f"{_FOR_TORCH}the rank, for programs written for torchrun")
WORLD_SIZE = Variable("WORLD_SIZE", "", f"{_FOR_TORCH}the number of ranks")
LOCAL_RANK = Variable("LOCAL_RANK", "", f"{_FOR_TORCH}the rank among those of this host")
LOCAL_WORLD_SIZE = Variable("LOCAL_WORLD_SIZE", "", f"{_FOR_TORCH}the number of ranks on this host")
MASTER_ADDR = Variable("MASTER_ADDR", "", "host at which torch.distributed's ranks meet; without it MPI is asked")
MASTER_PORT = Variable("MASTER_PORT", "", "the port there")

USER_VARIABLES = (LIBMPI, TIMEOUT_S, QUIET, CHECK, SHARED_MEMORY, KERNELS, ABORT, MAX_COUNT, CUDA_AWARE)

# Must be the same on every rank, also under launchers that forward no variables
FOR_ALL_RANKS = ("PYTHONPATH", "MLXDIST_*", "MLX_*")

# What a report of doctor contains of the environment
REPORTED = (
    *("MLXDIST_*", "MLX_*", "MPI4PY_*", "OMPI_*", "OPAL_*", "PRTE_*", "PMIX_*", "PMI_*", "SLURM_MPI_TYPE"),
    *("HYDRA_*", "HYDI_*", "MPICH_*", "MPIR_*", "MPIEXEC_*", "I_MPI_*", "FI_*", "UCX_*"),
    *("SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "PATH", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_*"),
    *("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "CONDA_PREFIX", "TMPDIR", "OMP_NUM_THREADS"),
)
SECRET = (LAUNCH.name,)
USERS = ("LOGNAME", "USER", "SUDO_USER")  # variables with the name of the user


def for_all_ranks(environ: Mapping[str, str]) -> list[str]:
    """The names in ``environ`` that must reach all ranks."""
    return sorted(name for name in environ if _is_any(name, FOR_ALL_RANKS))


def reported(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of ``environ`` that may explain what is wrong with MPI, and that anybody may know by their names."""
    return {name: environ[name] for name in sorted(environ) if _is_any(name, REPORTED)}


def deciding(environ: Mapping[str, str]) -> dict[str, str]:
    """Those of ``environ`` that decide what a rank runs and opens, without those its launcher sets for each rank."""
    wanted = (*FOR_ALL_RANKS, "PATH", "LD_LIBRARY_PATH", "OPAL_PREFIX", "OMPI_MCA_*")
    by_openmpi = ("OMPI_MCA_ess_*", "OMPI_MCA_orte_*", "OMPI_MCA_plm", "OMPI_MCA_routed")  # 4.1
    own = (RANK_PID.name, LAUNCH.name, LAUNCH_PIPE.name, *by_openmpi)
    return {name: environ[name] for name in sorted(environ) if _is_any(name, wanted) and not _is_any(name, own)}


def _is_any(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)
