"""What CONTRIBUTING says "To add" is true: each thing is added to one copy of the tree, which is built and used.

An addition is a list of places: a file, what stands there, and what goes behind it. Text that ends a line goes behind
the line that is named; where nothing is named it goes to the end of the file, which may be a new one.
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
zeros = dist.all_min(np.array([0.0, -0.0, np.nan][rank:] + [1.0] * rank, np.longdouble))
assert np.isnan(zeros[1]) and np.signbit(zeros[0]) and zeros[2] == 1, zeros
if rank:
    dist.send(x, 0)
else:
    assert np.array_equal(dist.recv(n, "float128", 1), each[1])
"""

# CONTRIBUTING, "A reduction"
REDUCTION: Places = [
    ("include/mlxdist/types.h", "row(MAX,", '    row(PROD, "all_prod", __VA_ARGS__) \\\n'),
    ("mlxdist/core/kernels/kernel_impl.h", "#define LOGICAL_MIN(", "#define LOGICAL_PROD(T, a, b) (T)(a & b)\n"),
    (
        "mlxdist/core/kernels/kernel_impl.h",
        "#define INTEGER_MIN(",
        "#define INTEGER_PROD(T, a, b) (T)((uint64_t)a * (uint64_t)b)\n",
    ),
    ("mlxdist/core/kernels/kernel_impl.h", "#define REAL_MIN(", "#define REAL_PROD(T, a, b) (a * b)\n"),
    (
        "mlxdist/core/kernels/kernel_impl.h",
        "#define COMPLEX_MIN(",
        "#define COMPLEX_PROD(T, a, b) ((T){a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re})\n",
    ),
]
# CONTRIBUTING, "An operation", of a kind that there is: the last four are its fast path
OPERATION: Places = [
    (
        "include/mlxdist/call.h",
        "row(ALL_MAX,",
        '    row(ALL_PROD,          "all_prod",          ALLREDUCE,      PROD,      SAME,      NONE) \\\n',
    ),
    (
        "mlxdist/ops.py",
        "",
        '''

@_core.operation
def all_prod(x: Any, *, group: world.GroupLike | None = None, stream: Any = None, out: Any = None) -> Any:
    """The product of all ranks' ``x``, element by element, on every rank.

    bool: "and". Integers wrap. Arguments, result and errors as for ``all_sum``.

    Example:
        >>> mlxdist.all_prod(np.arange(4))
    """
    return dispatch.run("all_prod", x, group=group, stream=stream, out=out)
''',
    ),
    ("mlxdist/__init__.py", "        all_min,", "        all_prod,\n"),
    ("mlxdist/__init__.py", '"all_min",', '    "all_prod",\n'),
    ("docs/api.md", "autofunction:: all_min", ".. autofunction:: all_prod\n"),
    ("mlxdist/_core.pxd", "CALL_ALL_MIN,", " CALL_ALL_PROD,"),
    (
        "mlxdist/compiled/fast_path.pxi",
        "    return collective(CALL_ALL_MIN, x, group, stream, out)",
        """

def all_prod(x, *, group=None, stream=None, out=None):
    return collective(CALL_ALL_PROD, x, group, stream, out)
""",
    ),
    (
        "mlxdist/_core.pyi",
        "def all_min(",
        "def all_prod(x: Any, *, group: Any = None, stream: Any = None, out: Any = None) -> Any: ...\n",
    ),
]
USE_OPERATION = """
for dtype in ("bool", "int8", "uint64", "float16", "float32", "float64", "complex64"):
    for n in (5, 100_000):
        each = [(np.arange(n) % 7 - 3 + r).astype(dtype) for r in range(2)]
        if dtype == "complex64":
            each = [x + x[::-1] * 1j for x in each]
        with np.errstate(all="ignore"):
            expected = each[0] * each[1]
        assert np.array_equal(dist.all_prod(each[rank].copy()), expected), dtype
        assert np.array_equal(dist.all_prod(memoryview(each[rank])), expected), dtype  # not on the fast path
x = np.full(3, 2.0)
assert dist.all_prod(x, out=x) is x and (x == 4).all()
try:
    dist.all_prod(x, out=x[:2])
    raise AssertionError("out is too short")
except ValueError as error:
    assert str(error).startswith("[all_prod] out has shape (2,), x has shape (3,)"), error
assert dist.all_prod.__doc__.startswith("The product")
"""
