"""One thing of each kind under "To add" in CONTRIBUTING, and programs that use them; test_to_add.py adds and runs them.

An addition is a list of places: a file, a text in it, and what is inserted after that text; whole lines are inserted
after its line. An empty text stands for the end of the file, which may be a new one.
"""

from __future__ import annotations

import numpy as np

Places = list[tuple[str, str, str]]

# CONTRIBUTING, "A dtype"
HAS_FLOAT128 = np.dtype("longdouble").name == "float128"
DTYPE: Places = [
    (
        "include/mlxdist/types.h",
        "row(FLOAT64,",
        '    row(FLOAT128, "float128", long double, REAL, LONG_DOUBLE) \\\n',
    ),
    (
        "include/mlxdist/mpi/abi.h",
        "row(DOUBLE,",
        '    row(LONG_DOUBLE, "ompi_mpi_long_double", 0x4c00100c, 0x220) \\\n',
    ),
]
USE_DTYPE = """
for n in (3, 1000, 100_000):
    each = [np.arange(n, dtype=np.longdouble) / (3 + r) for r in range(2)]
    x = each[rank].copy()
    assert np.array_equal(dist.all_sum(x), each[0] + each[1])
    assert np.array_equal(dist.all_max(-x), np.maximum(-each[0], -each[1]))
    assert np.array_equal(dist.all_gather(x), np.concatenate(each))
    assert np.array_equal(dist.average_gradients([x])[0], (each[0] + each[1]) / 2)
least = dist.all_min(np.array([[0, 1, np.nan], [-0.0, 2, 3]][rank], np.longdouble))
assert str(least) == "[-0.  1. nan]", least
if rank:
    dist.send(each[1], 0)
else:
    assert np.array_equal(dist.recv(n, "float128", 1), each[1])
"""

# CONTRIBUTING, "A reduction"
REDUCTION: Places = [
    ("include/mlxdist/types.h", "row(MAX,", '    row(FIRST, "all_first", __VA_ARGS__) \\\n'),
    (
        "mlxdist/core/kernels/kernel_impl.h",
        "#define LOGICAL_MIN(",
        "#define LOGICAL_FIRST(T, a, b) (T)((a | b) != 0)\n",
    ),
    ("mlxdist/core/kernels/kernel_impl.h", "#define INTEGER_MIN(", "#define INTEGER_FIRST(T, a, b) (a != 0 ? a : b)\n"),
    ("mlxdist/core/kernels/kernel_impl.h", "#define INTEGER_MIN_OF(", "#define INTEGER_FIRST_OF(T) UNSIGNED(T)\n"),
    ("mlxdist/core/kernels/kernel_impl.h", "#define REAL_MIN(", "#define REAL_FIRST(T, a, b) (a != 0 ? a : b)\n"),
    (
        "mlxdist/core/kernels/kernel_impl.h",
        "#define COMPLEX_MIN(",
        "#define COMPLEX_FIRST(T, a, b) (a.re != 0 || a.im != 0 ? a : b)\n",
    ),
]
# CONTRIBUTING, "An operation"; the last three places give it the fast path
OPERATION: Places = [
    (
        "include/mlxdist/call.h",
        "row(ALL_MAX,",
        '    row(ALL_FIRST,         "all_first",         ALLREDUCE,      FIRST,     SAME,      NONE) \\\n',
    ),
    (
        "mlxdist/ops.py",
        "",
        '''

@_core.operation
def all_first(
    x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None, wait: bool = True
) -> Any:
    """The first of all ranks' ``x`` that is not zero, element by element, on every rank.

    Arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.all_first(np.arange(4))
    """
    return dispatch.run("all_first", x, group=group, stream=stream, out=out, wait=wait)
''',
    ),
    ("mlxdist/__init__.py", "        all_bor,", "        all_first,\n"),
    ("mlxdist/__init__.py", '"all_bor",', '    "all_first",\n'),
    ("docs/api.md", "autofunction:: all_min", ".. autofunction:: all_first\n"),
    ("mlxdist/_core.pxd", "CALL_ALL_MIN,", " CALL_ALL_FIRST,"),
    (
        "mlxdist/compiled/fast_path.pxi",
        "    return collective(CALL_ALL_MIN, x, group, stream, out, wait)",
        """

def all_first(x, *, group=None, stream=None, out=None, wait=True):
    return collective(CALL_ALL_FIRST, x, group, stream, out, wait)
""",
    ),
    (
        "mlxdist/_core.pyi",
        "def all_min(",
        "def all_first(\n    x: Any, *, group: Any = None, stream: Any = None, out: Any = None, wait: Any = True\n"
        ") -> Any: ...\n",
    ),
]
USE_OPERATION = """
for dtype in ("bool", "int8", "uint64", "float16", "float32", "float64", "complex64"):
    for n in (5, 100_000):
        each = [(np.arange(n) % (7 - r) - 3).astype(dtype) for r in range(2)]
        if dtype == "complex64":
            each = [x + x[::-1] * 1j for x in each]
        expected = np.where(each[0] != 0, *each)
        assert np.array_equal(dist.all_first(each[rank].copy()), expected), dtype
        assert np.array_equal(dist.all_first(memoryview(each[rank])), expected), dtype  # not on the fast path
x = np.full(3, 2.0)
assert dist.all_first(x, out=x) is x and (x == 2).all()
try:
    dist.all_first(x, out=x[:2])
    raise AssertionError("out is too short")
except ValueError as error:
    assert str(error).startswith("[all_first] out has shape (2,), x has shape (3,)"), error
assert dist.all_first.__doc__.startswith("The first")
assert dist.all_first.__wrapped__  # the general path, behind the fast one
"""

# CONTRIBUTING, "A kind of operation". The algorithm is made of broadcasts: each rank adds up what comes from the ranks
# before it. There is no row for arrays on a GPU, which are refused.
KIND_OF_OPERATION: Places = [
    ("include/mlxdist/call.h", 'row(BROADCAST, "broadcast")', '    row(SCAN, "scan") \\\n'),
    (
        "include/mlxdist/call.h",
        "row(ALL_GATHER,",
        '    row(SCAN,              "scan",              SCAN,           SUM,       SAME,      NONE) \\\n',
    ),
    ("mlxdist/core/group/collective.c", "#include <string.h>", '\n#include "mlxdist/kernels/kernels.h"\n'),
    (
        "mlxdist/core/group/collective.c",
        ": PLACE_ONE_HOST;\n}\n",
        """
static int scan(struct members *members, const struct call *call, const void *sendbuf, void *recvbuf,
                struct outcome *outcome) {
    _Alignas(64) char sofar[8 << 10], next[sizeof sofar];
    enum element_type type = (enum element_type)call->type;
    int64_t size = (int64_t)element_size(type), most = (int64_t)sizeof sofar / size;
    if (members_arrive(members, call, outcome))
        return outcome->status;
    for (int64_t done = 0; done < call->count; done += most) {
        struct call part = flat_call(OPERATION_BROADCAST, 0, type, 0, call->count - done);
        part.count = part.count < most ? part.count : most;
        part.rank = call->rank;
        for (; part.peer < members->comm->size; part.peer++) {
            char *block = part.peer ? next : sofar;
            if (collective_run(members, &part, (const char *)sendbuf + done * size, block, outcome))
                return outcome->status;
            if (part.peer && part.peer <= call->rank)
                reduce(type, REDUCE_SUM, (const void *const[]){sofar, next}, 2, sofar, (size_t)part.count);
        }
        memcpy((char *)recvbuf + done * size, sofar, (size_t)(part.count * size));
    }
    return STATUS_OK;
}
""",
    ),
    (
        "mlxdist/core/group/collective.c",
        "} rows[] = {",
        """    {PLACE_ONE_HOST, OPERATION_SCAN, INT64_MAX, scan},
    {PLACE_SEVERAL_HOSTS, OPERATION_SCAN, INT64_MAX, scan},
""",
    ),
    (
        "mlxdist/ops.py",
        "",
        '''

@_core.operation
def scan(x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None) -> Any:
    """The sum of ``x`` of all ranks from 0 to this one.

    Arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.scan(1)        # 2 ranks: 1 and 2
    """
    return dispatch.run("scan", x, group=group, stream=stream, out=out)
''',
    ),
    ("mlxdist/__init__.py", "        reduce,", "        scan,\n"),
    ("mlxdist/__init__.py", '"reduce",', '    "scan",\n'),
    ("docs/api.md", "autofunction:: sum_scatter", ".. autofunction:: scan\n"),
]
USE_KIND_OF_OPERATION = """
for n in (3, 1000, 100_000):
    each = [np.arange(n) * 0.5 + r for r in range(2)]
    expected = each[0] if rank == 0 else each[0] + each[1]
    x = each[rank].copy()
    assert np.array_equal(dist.scan(x), expected)
    assert dist.scan(x, out=x) is x and np.array_equal(x, expected)
assert dist.scan(1) == rank + 1
alone = world.split(rank)
assert np.array_equal(dist.scan(x, group=alone), x)
on_gpu = _core.Buffer(x.ctypes.data, x.size, _core.type_of(x.dtype), x, x.shape, on_device=True)
try:
    _core.prepare("scan", world, None, x).run(on_gpu, on_gpu)
    raise AssertionError("there is no row for it")
except dist.Error as error:
    assert "pass an array in host memory" in str(error), error
both = world.split(0)
try:
    (dist.scan if rank else dist.all_sum)(x, group=both)
    raise AssertionError("the ranks differ")
except dist.MismatchError as error:
    assert "rank 1: scan float64 (100000,)" in str(error), error
"""

# CONTRIBUTING, "A framework". TINYARRAY is the framework itself: NumPy's memory in a class of its own, with own dtypes.
TINYARRAY = """
class DType:
    def __init__(self, name):
        self.name = name

    def __str__(self):
        return f"tinyarray.{self.name}"


class Array:
    def __init__(self, numbers):
        self.numbers = numbers

    shape = property(lambda self: self.numbers.shape)
    dtype = property(lambda self: DType(self.numbers.dtype.name))
"""
FRAMEWORK: Places = [
    ("mlxdist/arrays/__init__.py", "import cupy, jax, numpy, ", "tinyarray, "),
    ("mlxdist/arrays/__init__.py", "(numpy, torch, jax, cupy", ", tinyarray"),
    (
        "mlxdist/arrays/tinyarray.py",
        "",
        '''"""Arrays of tinyarray, which are NumPy's inside."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from mlxdist import _core
from mlxdist.arrays import elements
from mlxdist.arrays import numpy as host


def owns(x: object) -> bool:
    """Every Array."""
    tinyarray = sys.modules.get("tinyarray")
    return tinyarray is not None and isinstance(x, tinyarray.Array)


def as_array(call: str, x: Any) -> Any:
    """The Array itself."""
    elements.check(call, x.dtype.name)
    return x


def template(call: str, dtype: Any) -> Any:
    """Every DType."""
    tinyarray = sys.modules.get("tinyarray")
    if tinyarray is None or not isinstance(dtype, tinyarray.DType):
        return None
    elements.check(call, dtype.name)
    return tinyarray.Array(np.empty(0, dtype.name))


def writable(call: str, out: Any) -> Any:
    """As NumPy's array may be."""
    host.writable(call, out.numbers)
    return out


def memory(array: Any) -> tuple[int, int, bool]:
    """Of NumPy's array."""
    return host.memory(array.numbers)


def synchronize(call: str, array: Any, stream: Any) -> None:
    """There are no streams."""
    elements.no_stream(call, "arrays of tinyarray", stream)


def as_buffer(array: Any) -> _core.Buffer:
    """NumPy's memory."""
    return host.as_buffer(array.numbers)


def empty_like(array: Any, shape: tuple[int, ...]) -> _core.Buffer:
    """NumPy's memory."""
    return host.empty_like(array.numbers, shape)


def result(array: Any, buffer: _core.Buffer) -> Any:
    """Around NumPy's array."""
    return type(array)(buffer.owner)


def copyto(target: Any, source: Any) -> None:
    """NumPy's own copy."""
    to, source = (getattr(x, "numbers", x) for x in (target, source))
    if to is not source:
        np.copyto(to, source)


def is_changeable(array: Any) -> bool:
    """As NumPy's array is."""
    return host.is_changeable(array.numbers)


def changed(array: Any) -> None:
    """Nothing to do."""


def is_on_device(array: Any) -> bool:
    """Never."""
    return False
''',
    ),
    (
        "tests/parallel/frameworks/kinds.py",
        "is_mutable=False\n    )\n",
        """

def tiny_kind() -> Kind:
    import tinyarray

    views = {
        "contiguous": lambda x: tinyarray.Array(x.copy()),
        "transposed": lambda x: tinyarray.Array(x.T.copy().T),
    }
    return Kind(views, lambda x: x.numbers, tinyarray.Array, tinyarray.DType, is_mutable=True)
""",
    ),
    ("tests/parallel/frameworks/kinds.py", "\nKINDS = {", '"tinyarray": tiny_kind, '),
]
USE_FRAMEWORK = """
import tinyarray

x = tinyarray.Array(np.full((2, 3), rank + 1, np.float32))
total = dist.all_sum(x)
assert isinstance(total, tinyarray.Array) and (total.numbers == 3).all()
assert (dist.all_gather(x).numbers == [[1] * 3] * 2 + [[2] * 3] * 2).all()
assert dist.all_sum(x, out=x) is x and (x.numbers == 3).all()
if rank:
    dist.send(x, 0)
else:
    received = dist.recv((2, 3), tinyarray.DType("float32"), 1)
    assert isinstance(received, tinyarray.Array) and (received.numbers == 3).all()
assert dist.average_gradients([x])[0] is x
"""

# CONTRIBUTING, "A check of doctor"
CHECK: Places = [
    (
        "mlxdist/cli/doctor/checks_machine.py",
        "",
        '''

def descriptors(env: Environment) -> Iterator[Finding]:
    """A rank has a descriptor for each connection."""
    import resource

    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit < 256:
        yield Finding(WARNING, f"a process may open only {limit} files", "ulimit -n 1024")
''',
    ),
    (
        "mlxdist/cli/doctor/checks.py",
        "Check(checks_machine.slots),",
        "    Check(checks_machine.descriptors, on_each_rank=True),\n",
    ),
    (
        "tests/broken.py",
        "SET_UPS = (",
        """    Broken(
        "few files may be open",
        lambda here: SetUp({}, ["sh", "-c", 'ulimit -S -n 200; exec "$@"', "sh"]),
        {"a process may open only 200 files": "ulimit -n 1024"},
    ),
""",
    ),
]

# CONTRIBUTING, "An MPI": Tiny MPI has MPICH's ABI, speaks PMI, and has an mpirun with options of its own
MPI: Places = [
    (
        "tests/mpis.py",
        "MPIS = (",
        '    MPI("tiny-1", "tinympi==1.2", "bin/tinyrun", "lib/libtinympi.so.1", "Tiny MPI"),\n',
    ),
    ("mlxdist/mpi/search.py", '"libmpich.so.12",', '        "libtinympi.so.1",\n'),
    ("mlxdist/mpi/search.py", '_variable("I_MPI_ROOT"),', '    _variable("TINYMPI_ROOT"),\n'),
    ("mlxdist/mpi/launchers.py", '("hydra_pmi_proxy", "mpiexec.gforker"', ', "tinyrun"'),
    (
        "mlxdist/mpi/launchers.py",
        "KINDS = (",
        '    _Kind(_PMI, "tiny", "Tiny MPI\'s tinyrun", {"TINYMPI_JOB": ".+"}),\n',
    ),
    ("mlxdist/mpi/launchers.py", "_OWN_LAUNCHER = {", '    "Tiny MPI": ("tinyrun",),\n'),
    (
        "mlxdist/mpi/launchers.py",
        "RULES = (",
        '    _Rule(("tiny",), lambda lib, *_: lib.vendor != "Tiny MPI", _STRANGERS),\n',
    ),
    (
        "mlxdist/cli/launch/mpirun.py",
        "FAMILIES = (",
        """    dataclasses.replace(
        _MPICH,
        name="Tiny MPI",
        matches=lambda library: library.vendor == "Tiny MPI",
        size=("--ranks", "{}"),
        hosts=("--on", "{}"),
    ),
""",
    ),
    (
        "mlxdist/cli/doctor/environment.py",
        "_VERSIONS = (",
        '    (r"Tiny MPI launcher (\\d[\\d.]*)", "tiny", "Tiny MPI\'s tinyrun"),\n',
    ),
]
TINYRUN = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
int main(int n, char **arguments) {
    int status;
    if (!strcmp(arguments[1], "--version"))
        return puts("Tiny MPI launcher 1.2") < 0;
    setenv("TINYMPI_JOB", "7", 1);
    setenv("PMI_SIZE", arguments[2], 1);
    setenv("PMI_RANK", "0", 1);
    if (!fork())
        return execvp(arguments[3], arguments + 3);
    return wait(&status) < 0 || status;
}
"""
USE_MPI = """
import json
from mlxdist.mpi import choose

context = choose.this_process()
found = choose.libmpi(context, False, [])
print(json.dumps([context.launcher.name, str(found.library), found.found.found_via]))
"""

# CONTRIBUTING, "A shim"
SHIM: Places = [
    (
        "mlxdist/core/shims/tiny.c",
        "",
        """#include "mlxdist/shim.h"

static const struct core_functions *core;

const void *mlxdist_connect(const struct core_functions *functions) {
    core = functions;
    return &core;
}

__attribute__((visibility("default"))) int tiny_size(void) {
    return core ? core->group_size(core->core_world()) : 0;
}
""",
    ),
    (
        "mlxdist/compiled/mlx.pxi",
        "",
        "\n\ndef connect_tiny(str path):\n    return shim_connect(fsencode(path)) != NULL\n",
    ),
    ("tests/unit/test_layers.py", '"shims/": ("mlx_libmpi",', ' "tiny",'),
]
USE_SHIM = """
import ctypes, os
folder, name = os.path.split(_core.__file__)
path = os.path.join(folder, name.replace("_core", "_tiny"))
assert not _core.connect_tiny(path)
tiny = ctypes.CDLL(path)
assert tiny.tiny_size() == 0
assert _core.connect_tiny(path)
assert tiny.tiny_size() == 2
"""

ADDITIONS = [REDUCTION, OPERATION, KIND_OF_OPERATION, FRAMEWORK, CHECK, MPI, SHIM, *([DTYPE] if HAS_FLOAT128 else [])]
USES = [USE_OPERATION, USE_KIND_OF_OPERATION, USE_FRAMEWORK, USE_SHIM, *([USE_DTYPE] if HAS_FLOAT128 else [])]
