"""Build the one extension: no MPI and no MLX is needed for it, only NumPy's headers."""

import os
import sys
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("mlxdist/core")
TRACED = bool(os.environ.get("MLXDIST_BUILD_TRACED"))  # for coverage of _core.pyx; slow

link_args = [] if sys.platform == "darwin" else ["-Wl,-Bsymbolic"]  # our MPI_* and ompi_* names are for MLX alone

extension = Extension(
    "mlxdist._core",
    sources=["mlxdist/_core.pyx", *map(str, sorted(CORE.glob("*.c"))), str(CORE / "mlx_libmpi.cpp")],
    depends=[
        "mlxdist/_core.pxd",
        *map(str, Path("mlxdist").glob("*.pxi")),
        *map(str, Path("include/mlxdist").glob("*.h")),
        *map(str, CORE.glob("*_impl.h")),
    ],
    include_dirs=["include", numpy.get_include()],
    define_macros=[
        ("_GNU_SOURCE", None),
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        *([("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if TRACED else []),
    ],
    extra_compile_args=["-O3", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math"],
    extra_link_args=link_args,
)

setup(ext_modules=cythonize([extension], compiler_directives={"linetrace": TRACED}))
