"""Libraries built on the fly: what an unstarted one reveals, and how a started one is called.

They are started in a child process, since a process can start MPI only once.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import mpis
import pytest

from mlxdist import _core, errors

COMPILER = shutil.which("cc") or shutil.which("gcc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="no C compiler to build a fake libmpi with")

ABI = (mpis.ROOT / "include/mlxdist/mpi/abi.h").read_text()
FUNCTIONS = re.findall(r"row\((\w+), \(.*\)\)", ABI)
SYMBOLS = re.findall(r'"(ompi_\w+)"', ABI)
MAX_COUNT = 2**31 - 1

# Functions of the stub that do more than return 0. THREADS is the level that it provides, KEY the attribute it has.
SPOKEN = r"""
#include <stdio.h>
#include <string.h>
int MPI_Get_library_version(char *text, int *length) {
    memset(text, 'x', 8191);
    memcpy(text, VERSION "\nmore", sizeof VERSION + 5);
    text[sizeof VERSION + 4] = 'y';
    text[8191] = 0;
    *length = 8191;
    return 0;
}
int MPI_Init_thread(int *c, char ***v, int wanted, int *provided) {
    printf("wanted %d\n", wanted);
    *provided = THREADS;
    return 0;
}
int MPI_Comm_size(HANDLE comm, int *size) { *size = 3; return 0; }
int MPI_Comm_rank(HANDLE comm, int *rank) { *rank = 2; return 0; }
int MPI_Comm_get_attr(HANDLE comm, int key, void *value, int *found) {
    static int last = 1 << 20, small = 3;
    *(int **)value = key == KEY ? &last : &small;
    *found = 1;
    return 0;
}
int MPI_Comm_set_errhandler(HANDLE comm, HANDLE handler) { printf("handler %#lx\n", (long)handler); return 0; }
/* Each rank says that it is alone on its host: a struct that begins with the host's lowest rank. */
int MPI_Allgather(const void *sent, int nbytes, HANDLE type, char *received) {
    for (int rank = 0; rank < 3; rank++) {
        memcpy(received + rank * nbytes, sent, nbytes);
        memcpy(received + rank * nbytes, &rank, sizeof rank);
    }
    return 0;
}
int MPI_Iallgather(const void *sent, int nbytes, HANDLE type, char *received) {
    return MPI_Allgather(sent, nbytes, type, received);
}
int MPI_Isend(void) { return 77; }
int MPI_Test(HANDLE *request, int *done, void *status) { *done = 1; return 0; }
int MPI_Error_class(int code, int *class) { *class = code - 62; return 0; }
int MPI_Error_string(int code, char *text, int *length) { strcpy(text, "because"); *length = 7; return 0; }
"""


def build(folder: Path, *, handle: str, extra: str = "", without: str = "", **defines: str | int) -> Path:
    """A libmpi with every function of abi.h, and ``extra``."""
    own = set(re.findall(r"int MPI_(\w+)\(", SPOKEN))
    plain = [f"int MPI_{name}(void) {{ return 0; }}" for name in FUNCTIONS if name not in own]
    source = "\n".join([SPOKEN, *plain, extra])
    source = "\n".join(line for line in source.splitlines() if not without or without not in line)
    path = folder / "libmpi.so"
    options = {"VERSION": '"Fake MPI 1.2"', "THREADS": 3, "KEY": 506, "HANDLE": handle} | defines
    flags = [f"-D{name}={value}" for name, value in options.items()]
    assert COMPILER is not None
    command = [COMPILER, "-w", "-shared", "-fPIC", *flags, "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=source, text=True, check=True)
    return path


OPENMPI = "\n".join(f"char {symbol}[64];" for symbol in sorted(set(SYMBOLS)))
STANDARD = "int MPI_Abi_get_version(int *major, int *minor) { *major = 1; *minor = 0; return 0; }"
CLASSIC = "int MPI_Abi_get_version(int *major, int *minor) { *major = -1; *minor = -1; return 0; }"

FAMILIES = {
    "openmpi": ("openmpi", {"handle": "void *", "extra": OPENMPI}),
    "mpich": ("mpich", {"handle": "int"}),
    "mpich-5-classic": ("mpich", {"handle": "int", "extra": CLASSIC}),
    "standard": ("standard", {"handle": "void *", "extra": STANDARD}),
    "standard-over-openmpi": ("standard", {"handle": "void *", "extra": STANDARD + OPENMPI}),
}


@pytest.mark.parametrize("kind", FAMILIES)
def test_the_family_and_the_first_line_of_the_version_are_known(kind: str, tmp_path: Path) -> None:
    family, options = FAMILIES[kind]
    library = _core.Library.open(str(build(tmp_path, **options)), MAX_COUNT)
    assert (library.family, library.version) == (family, "Fake MPI 1.2")
    assert Path(library.path).samefile(tmp_path / "libmpi.so")
    library.close()


@pytest.mark.parametrize(
    ("options", "missing"),
    [
        ({"handle": "void *", "extra": OPENMPI.replace("ompi_mpi_op_sum", "other")}, "ompi_mpi_op_sum"),
        ({"handle": "int", "without": "MPI_Improbe"}, "MPI_Improbe"),
        ({"handle": "int", "without": "MPI_Get_library_version"}, "not an MPI library"),
    ],
)
def test_what_a_library_lacks_is_named(options: dict[str, str], missing: str, tmp_path: Path) -> None:
    if missing == "not an MPI library":
        (tmp_path / "empty.c").write_text("int nothing;")
        path = tmp_path / "libmpi.so"
        subprocess.run([str(COMPILER), "-shared", "-fPIC", str(tmp_path / "empty.c"), "-o", str(path)], check=True)
    else:
        path = build(tmp_path, **options)
    with pytest.raises(errors.LoadError, match=missing):
        _core.Library.open(str(path), MAX_COUNT)


def test_a_text_file_and_a_missing_file_give_the_message_of_dlopen(tmp_path: Path) -> None:
    text = tmp_path / "libmpi.so"
    text.write_text("INPUT(libmpi.so.40)\n")
    with pytest.raises(errors.LoadError, match=r"libmpi\.so"):
        _core.Library.open(str(text), MAX_COUNT)
    with pytest.raises(errors.LoadError, match="No such file"):
        _core.Library.open(str(tmp_path / "nothing.so"), MAX_COUNT)


START = """
import sys
import numpy
from mlxdist import _core, errors
world = _core.start(_core.Library.open(sys.argv[1], 2**31 - 1), _core.Group, share=0)
nothing = _core.Buffer(0, 0, 0, None, ())
print(world.rank(), "of", world.size(), _core.threads(), _core.initialized_by_us(), flush=True)
try:
    _core.prepare("barrier", world, None, numpy.zeros(0)).run(nothing, nothing)
except errors.MPIError as error:
    print(error.call, error.code, error.error_class, error)
"""
# family, defines, handle of MPI_ERRORS_RETURN, value of MPI_THREAD_MULTIPLE
STARTS = {
    "openmpi": ("openmpi", {}, None, 3),
    "mpich": ("mpich", {}, 0x54000001, 3),
    "final standard": ("standard", {"KEY": 506, "THREADS": 4096}, 0x143, 4096),
    "draft standard": ("standard", {"KEY": 507, "THREADS": 4096}, 0x142, 4096),
}


@pytest.mark.parametrize("kind", STARTS)
def test_a_started_library_is_called_with_its_own_constants(kind: str, tmp_path: Path) -> None:
    family, defines, errors_return, multiple = STARTS[kind]
    path = build(tmp_path, **FAMILIES[family][1], **defines)
    output = subprocess.run(
        [sys.executable, "-c", START, str(path)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert f"wanted {multiple}\n" in output
    assert "2 of 3 MPI_THREAD_MULTIPLE True\n" in output
    handlers = set(re.findall("handler (.*)", output))
    assert len(handlers) == 1
    if errors_return is not None:
        # an int handle of the MPICH family is printed as the int that it is
        assert {int(handler, 16) & 0xFFFFFFFF for handler in handlers} == {errors_return}
    expected = "MPI_ERR_TRUNCATE" if family != "mpich" else "MPI_ERR_OTHER"
    assert f"MPI_Isend 77 {expected} [barrier] MPI_Isend failed with {expected} (code 77)" in output
    assert ("the library says: because" in output) == (family != "standard")


@pytest.mark.parametrize(("provided", "level"), [*enumerate(["SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE"])])
def test_the_provided_thread_level_is_reported(provided: int, level: str, tmp_path: Path) -> None:
    path = build(tmp_path, handle="int", THREADS=provided)
    output = subprocess.run(
        [sys.executable, "-c", START, str(path)], capture_output=True, text=True, timeout=60, check=True
    ).stdout
    assert f"MPI_THREAD_{level} " in output
