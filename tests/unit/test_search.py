"""search: where a libmpi is searched, in which order, and what it needs before it is opened."""

import ctypes
import mmap
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlxdist.mpi import launchers, processes, search
from mlxdist.mpi.launchers import Launcher
from mlxdist.mpi.search import Candidate, Context, Miss, candidates, environment, preload

BARE_NAMES = ("libmpi.so.40", "libmpi.so.12", "libmpich.so.12", "libmpi_abi.so.1", "libmpi_abi.so.0")


@pytest.fixture(autouse=True)
def nothing_in_the_usual_prefixes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "USUAL_PREFIXES", {})


def context(
    environ: Mapping[str, str] | None = None,
    *,
    executable: str | None = None,
    mapped: tuple[str, ...] = (),
    python_prefix: object = "/nowhere",
    platform: str = "linux",
    path: Mapping[str, object] | None = None,
) -> Context:
    launcher = Launcher("a launcher", "openmpi", 2, 0, "OMPI_COMM_WORLD_SIZE", executable, ()) if executable else None
    programs = {name: str(place) for name, place in (path or {}).items()}
    return Context(environ or {}, launcher, mapped, str(python_prefix), platform, programs.get)


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found_files(found: Iterable[Candidate | Miss]) -> list[Candidate]:
    return [item for item in found if isinstance(item, Candidate)]


def files(found: Iterable[Candidate | Miss]) -> list[str]:
    """Paths of the candidates, without the bare names at the end."""
    return [item.path for item in found_files(found) if os.sep in item.path]


def test_every_step_in_order(tmp_path: Path) -> None:
    names = ("libdir", "launcher", "opal", "intel", "mpiexec", "mpirun", "python", "conda")
    libraries = {name: tmp_path / name / "lib" / "libmpi.so.40" for name in names}
    touch(*libraries.values())
    found = found_files(
        candidates(
            context(
                {
                    "OMPI_LIBDIR_LOC": f"{tmp_path}/libdir/lib",
                    "OPAL_PREFIX": f"{tmp_path}/opal",
                    "I_MPI_ROOT": f"{tmp_path}/intel",
                    "CONDA_PREFIX": f"{tmp_path}/conda",
                },
                executable=f"{tmp_path}/launcher/bin/prterun",
                python_prefix=tmp_path / "python",
                path={name: tmp_path / name / "bin" / name for name in ("mpiexec", "mpirun")},
            )
        )
    )
    assert [item.path for item in found if os.sep in item.path] == list(map(str, libraries.values()))
    assert [item.found_via for item in found[: len(names)]] == [
        "OMPI_LIBDIR_LOC",
        "prefix of the launcher",
        "OPAL_PREFIX",
        "I_MPI_ROOT",
        "mpiexec on PATH",
        "mpirun on PATH",
        "sys.prefix",
        "CONDA_PREFIX",
    ]
    assert tuple(item.path for item in found[len(names) :][: len(BARE_NAMES)]) == BARE_NAMES
    assert not any(item.decisive for item in found)


def test_what_is_in_the_process_already_decides(tmp_path: Path) -> None:
    touch(tmp_path / "lib" / "libmpi.so.40")
    environ = {"MLXDIST_LIBMPI": f"{tmp_path}/lib/libmpi.so.40"}
    mapped = ("/m/lib/libmpi.so.40.30.4",)
    assert list(candidates(context(environ, mapped=mapped, python_prefix=tmp_path))) == [
        Candidate("/m/lib/libmpi.so.40.30.4", "already in this process", decisive=True)
    ]


def test_several_in_the_process_are_all_tried() -> None:
    found = found_files(candidates(context(mapped=("/m/libmpi.so.40", "/n/libmpi.so.12"))))
    assert [(item.path, item.decisive) for item in found] == [("/m/libmpi.so.40", False), ("/n/libmpi.so.12", True)]


@pytest.mark.parametrize("value", ["/user/lib/libmpi.so.99", "libmpi_of_mine.so"])
def test_the_users_library_decides_even_if_it_is_not_there(value: str, tmp_path: Path) -> None:
    touch(tmp_path / "lib" / "libmpi.so.40")
    found = list(candidates(context({"MLXDIST_LIBMPI": value}, python_prefix=tmp_path)))
    assert found == [Candidate(value, "MLXDIST_LIBMPI", decisive=True)]


def test_the_users_library_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert files(candidates(context({"MLXDIST_LIBMPI": "lib/libmpi.so.12"}))) == [f"{tmp_path}/lib/libmpi.so.12"]


@pytest.mark.parametrize("named", ["", "lib"])
def test_the_users_directory_decides_with_its_last_library(named: str, tmp_path: Path) -> None:
    touch(tmp_path / "lib" / "libmpi.so.40", tmp_path / "lib" / "libmpich.so.12")
    assert list(candidates(context({"MLXDIST_LIBMPI": str(tmp_path / named)}, python_prefix=tmp_path))) == [
        Candidate(f"{tmp_path}/lib/libmpi.so.40", "MLXDIST_LIBMPI", decisive=False),
        Candidate(f"{tmp_path}/lib/libmpich.so.12", "MLXDIST_LIBMPI", decisive=True),
    ]


def test_the_users_directory_without_library(tmp_path: Path) -> None:
    found = list(candidates(context({"MLXDIST_LIBMPI": str(tmp_path)})))
    assert isinstance(found[0], Miss)
    assert str(tmp_path) in found[0].why
    assert found[1:] == [Candidate(str(tmp_path), "MLXDIST_LIBMPI", decisive=True)]


@pytest.mark.parametrize(
    "directory",
    [
        *("lib", "lib64", f"lib/{search.TRIPLET}", "lib/release", "lib64/openmpi/lib", "lib64/mpich/lib"),
        *("lib/openmpi-mp", "lib/mpich-clang17"),
    ],
)
def test_directories_below_a_prefix(directory: str, tmp_path: Path) -> None:
    touch(tmp_path / directory / "libmpi.so.12")
    assert files(candidates(context(python_prefix=tmp_path))) == [f"{tmp_path}/{directory}/libmpi.so.12"]


def test_names_in_a_directory_on_linux(tmp_path: Path) -> None:
    # libmpi.so is not a library in the wheels, and the others are bindings.
    no_libmpi = ("libmpi.so", "libmpicxx.so.12", "libmpifort.so.12", "libmpi_mpifh.so.40", "libmpi.40.dylib")
    touch(*(tmp_path / "lib" / name for name in (*reversed(BARE_NAMES), "libmpi_cray.so.12", *no_libmpi)))
    assert [os.path.basename(path) for path in files(candidates(context(python_prefix=tmp_path)))] == [
        *BARE_NAMES,
        "libmpi_cray.so.12",
    ]


def test_names_in_a_directory_on_macos(tmp_path: Path) -> None:
    names = ("libmpi.40.dylib", "libmpi.12.dylib", "libmpi_abi.1.dylib", "libmpi_abi.0.dylib", "libmpi.dylib")
    touch(*(tmp_path / "lib" / name for name in (*reversed(names), "libmpi.so.40")))
    found = found_files(candidates(context(python_prefix=tmp_path, platform="darwin")))
    assert [os.path.basename(item.path) for item in found] == [*names, *names]


@pytest.mark.parametrize(("platform", "name"), [("darwin", "libmpi.40.dylib"), ("linux", "libmpi.so.40")])
def test_usual_prefixes(platform: str, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path / "brew" / "lib" / "libmpi.40.dylib", tmp_path / "usr" / "lib" / "libmpi.so.40")
    prefixes = {"darwin": (f"{tmp_path}/brew",), "linux": (f"{tmp_path}/usr",)}
    monkeypatch.setattr(search, "USUAL_PREFIXES", prefixes)
    assert [os.path.basename(path) for path in files(candidates(context(platform=platform)))] == [name]


def test_macports_installs_each_mpi_below_lib(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its launcher under a name of its own; the plain one is a link to that of any of them."""
    libraries = [tmp_path / "lib" / place for place in ("openmpi-mp/libmpi.40.dylib", "mpich-mp/libmpi.12.dylib")]
    names = ("mpirun-openmpi-mp", "mpirun", "mpiexec", "mpiexec-mpich-mp")
    touch(*libraries, *(tmp_path / "bin" / name for name in names), tmp_path / "lib" / "openssl-3" / "libmpi.12.dylib")
    monkeypatch.setattr(search, "USUAL_PREFIXES", {"darwin": (str(tmp_path),)})
    assert files(candidates(context(platform="darwin"))) == list(map(str, libraries))
    own = [
        launchers.own_launcher(launchers.LibraryInfo(str(path), "", version))
        for path, version in zip(libraries, ("Open MPI v5.0.8, package: x", "MPICH Version: 4.3.2"), strict=True)
    ]
    assert own == [f"{tmp_path}/bin/mpirun-openmpi-mp", f"{tmp_path}/bin/mpiexec-mpich-mp"]


def test_a_library_is_yielded_once_by_its_real_path(tmp_path: Path) -> None:
    touch(tmp_path / "lib" / "libmpi.so.40.30.4")
    (tmp_path / "lib" / "libmpi.so.40").symlink_to("libmpi.so.40.30.4")
    (tmp_path / "lib64").symlink_to("lib")
    (tmp_path / "view").symlink_to(tmp_path)
    environ = {"OPAL_PREFIX": f"{tmp_path}/view", "CONDA_PREFIX": str(tmp_path)}
    assert files(candidates(context(environ, python_prefix=tmp_path))) == [f"{tmp_path}/view/lib/libmpi.so.40"]


def test_a_dangling_link_is_not_a_library(tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "libmpi.so.40").symlink_to("libmpi.so.40.30.4")
    assert files(candidates(context(python_prefix=tmp_path))) == []


def test_the_program_on_path_is_followed_to_its_installation(tmp_path: Path) -> None:
    # As on Debian, with an installation of its own at the end.
    touch(tmp_path / "opt" / "bin" / "orterun", tmp_path / "opt" / "lib" / "libmpi.so.40")
    touch(tmp_path / "usr" / "lib" / "libmpi.so.12")
    for link, target in (("etc/mpirun", "opt/bin/orterun"), ("usr/bin/mpirun", "etc/mpirun")):
        (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / link).symlink_to(tmp_path / target)
    found = found_files(candidates(context(path={"mpirun": tmp_path / "usr" / "bin" / "mpirun"})))
    assert [(item.path, item.found_via) for item in found[:2]] == [
        (f"{tmp_path}/opt/lib/libmpi.so.40", "mpirun on PATH"),
        (f"{tmp_path}/usr/lib/libmpi.so.12", "mpirun on PATH"),
    ]


@pytest.mark.parametrize("executable", ["slurmstepd", "/usr/sbin/slurmstepd"])
def test_a_launcher_without_prefix_is_not_searched(executable: str) -> None:
    assert "prefix of the launcher" not in {item.found_via for item in candidates(context(executable=executable))}


def test_places_without_a_libmpi_are_reported_once(tmp_path: Path) -> None:
    environ = {"OMPI_LIBDIR_LOC": f"{tmp_path}/gone", "CONDA_PREFIX": str(tmp_path)}
    misses = [item for item in candidates(context(environ, python_prefix=tmp_path)) if isinstance(item, Miss)]
    assert [item.found_via for item in misses] == ["OMPI_LIBDIR_LOC", "mpiexec on PATH", "mpirun on PATH", "sys.prefix"]
    assert f"{tmp_path}/gone" in misses[0].why
    assert str(tmp_path) in misses[3].why


@contextmanager
def mapped(*paths: Path) -> Iterator[None]:
    maps = []
    for path in paths:
        path.write_bytes(b"x" * mmap.PAGESIZE)
        with path.open("rb") as file:
            maps.append(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    yield
    for each in maps:
        each.close()


@pytest.mark.skipif(not os.path.exists("/proc/self/maps"), reason="no /proc")
@pytest.mark.parametrize(
    ("name", "is_libmpi"),
    [
        ("libmpi.so.40", True),
        ("libmpi.so.40.30.4", True),
        ("libmpi.so", True),
        ("libmpich.so.12.2.0", True),
        ("libmpi_abi.so.1", True),
        ("libmpi_cray.so.12", True),
        ("libmpi_gnu_91.so.12", True),
        ("libmpi_ibm.so.3", True),
        ("libmpi.40.dylib", True),
        ("libmpi_mpifh.so.40", False),
        ("libmpicxx.so.12", False),
        ("libmpifort.so.12", False),
        ("libmpi_ilp64.so.4", False),
        ("notlibmpi.so.40", False),
        ("libmpi.so.40.txt", False),
    ],
)
def test_context_sees_what_is_in_the_process(name: str, is_libmpi: bool, tmp_path: Path) -> None:
    (tmp_path / "a directory").mkdir()
    library = tmp_path / "a directory" / name
    with mapped(library):
        assert (str(library) in Context.here(None).mapped) is is_libmpi


def test_context_sees_what_is_in_the_process_on_macos(monkeypatch: pytest.MonkeyPatch) -> None:
    images = [
        b"/usr/lib/dyld",
        b"/opt/homebrew/Cellar/mpich/4.3.2/lib/libmpi.12.dylib",
        None,
        b"/lib/libmpicxx.12.dylib",
    ]

    dyld = SimpleNamespace(_dyld_image_count=lambda: len(images), _dyld_get_image_name=lambda number: images[number])
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: dyld)
    assert Context.here(None).mapped == ("/opt/homebrew/Cellar/mpich/4.3.2/lib/libmpi.12.dylib",)


def test_context_without_proc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "PROC", str(tmp_path))
    assert processes.mapped_files() == []
    assert Context.here(None).mapped == ()


def test_context_is_of_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXDIST_LIBMPI", "/user/libmpi.so")
    here = Context.here(None)
    assert here.environ["MLXDIST_LIBMPI"] == "/user/libmpi.so"
    assert (here.python_prefix, here.platform, here.launcher) == (sys.prefix, sys.platform, None)
    assert here.which("sh") is not None


@pytest.mark.parametrize(
    ("fabric", "providers"),
    [("lib", "lib"), ("lib/libfabric", "lib/libfabric"), ("lib/libfabric", "lib/libfabric/prov")],
)
@pytest.mark.parametrize("family", ["mpich", "standard"])
def test_intels_libfabric_is_opened_first(fabric: str, providers: str, family: str, tmp_path: Path) -> None:
    path = tmp_path / "lib" / "libmpi.so.12"
    library = tmp_path / fabric / "libfabric.so.1"
    touch(path, library, tmp_path / providers / "libtcp-fi.so")
    assert preload(str(path)) == (str(library),)
    assert environment(str(path), family, {}) == {"FI_PROVIDER_PATH": str(tmp_path / providers)}
    assert environment(str(path), family, {"FI_PROVIDER_PATH": "/user"}) == {}


def test_a_libfabric_of_the_system_is_left_alone(tmp_path: Path) -> None:
    touch(tmp_path / "lib" / "libmpi.so.12", tmp_path / "lib" / "libfabric.so.1")
    assert preload(f"{tmp_path}/lib/libmpi.so.12") == ()
    assert environment(f"{tmp_path}/lib/libmpi.so.12", "mpich", {}) == {}


@pytest.mark.parametrize("lib", ["lib", "lib64"])
@pytest.mark.parametrize("mark", ["share/openmpi", "lib/openmpi"])
def test_open_mpi_is_told_where_it_is_installed(lib: str, mark: str, tmp_path: Path) -> None:
    (tmp_path / mark).mkdir(parents=True)
    path = f"{tmp_path}/{lib}/libmpi.so.40"
    assert environment(path, "openmpi", {}) == {"OPAL_PREFIX": str(tmp_path)}
    assert environment(path, "openmpi", {"OPAL_PREFIX": "/user"}) == {}
    assert environment(path, "mpich", {}) == {}


@pytest.mark.parametrize("path", ["lib/libmpi.so.40", "lib/x86_64-linux-gnu/libmpi.so.40"])
def test_open_mpi_that_is_not_a_relocatable_tree(path: str, tmp_path: Path) -> None:
    # Nothing marks it; Debian's plugins lie below the triplet.
    (tmp_path / "lib" / "x86_64-linux-gnu" / "openmpi").mkdir(parents=True)
    assert environment(f"{tmp_path}/{path}", "openmpi", {}) == {}


@pytest.mark.parametrize("prefix", ["/usr", "/usr/local"])
def test_open_mpi_of_the_system_knows_where_it_is_installed(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "isdir", lambda _: True)
    assert environment(f"{prefix}/lib/libmpi.so.40", "openmpi", {}) == {}
    assert environment("/opt/openmpi/lib/libmpi.so.40", "openmpi", {}) == {"OPAL_PREFIX": "/opt/openmpi"}


@pytest.mark.parametrize("family", ["openmpi", "mpich", "standard"])
def test_a_bare_name_needs_nothing(family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    touch(tmp_path / "libfabric.so.1", tmp_path / "libtcp-fi.so")
    assert preload("libmpi.so.40") == ()
    assert environment("libmpi.so.40", family, {}) == {}
