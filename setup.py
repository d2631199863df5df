"""Build the extension and the shims: no MPI and no framework is needed for them, only NumPy's headers."""

import os
import re
import sys
import sysconfig
from pathlib import Path

import numpy
from Cython.Build import cythonize
from setuptools import Extension, setup

CORE = Path("mlxdist/core")
# Ranks compare it at start. Python 3.10 has no tomllib.
VERSION = re.search(r'^version = "([^"]+)"', Path("pyproject.toml").read_text(), re.MULTILINE)[1]
TRACED = bool(os.environ.get("MLXDIST_BUILD_TRACED"))  # for coverage of _core.pyx; slow
# One wheel for CPython 3.12 and all later ones. all_sum of one number took 0.275 us with it and 0.247 us without (two
# ranks of a host, medians, CPython 3.12.1), so it is not the default.
ABI3 = bool(os.environ.get("MLXDIST_BUILD_ABI3"))
if ABI3 and (sys.version_info < (3, 12) or sysconfig.get_config_var("Py_GIL_DISABLED")):
    sys.exit("MLXDIST_BUILD_ABI3 is for CPython 3.12 and later with the GIL: build with one of them, or without it")

HEADERS = [str(path) for path in sorted(Path("include/mlxdist").rglob("*.h"))]
SHIMS = sorted(path for path in (CORE / "shims").iterdir() if path.suffix in (".c", ".cpp"))
COMPILE = ["-O3", "-g0", "-fvisibility=hidden"]
# A fused multiply-add, which only some variants of the kernels have, would round differently from the others.
MATH = ["-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
# Not sys.platform: that is Linux when wheels for macOS are compiled there.
IS_MACOS = sysconfig.get_platform().startswith("macosx")
# A shim uses its own names where libmpi has the same, and none of the core, Python or MPI.
LINK_SHIM = [] if IS_MACOS else ["-Wl,-Bsymbolic", "-Wl,-z,defs"]

extension = Extension(
    "mlxdist._core",
    sources=["mlxdist/_core.pyx", *(str(path) for path in sorted(CORE.rglob("*.c")) if path not in SHIMS)],
    depends=[
        "mlxdist/_core.pxd",
        *map(str, Path("mlxdist/compiled").glob("*.pxi")),
        *HEADERS,
        *map(str, CORE.rglob("*.h")),
        "pyproject.toml",
    ],
    include_dirs=["include", numpy.get_include()],
    define_macros=[
        ("_GNU_SOURCE", None),
        ("NPY_NO_DEPRECATED_API", "NPY_1_7_API_VERSION"),
        ("MLXDIST_VERSION", f'"{VERSION}"'),
        *([("CYTHON_TRACE_NOGIL", "1"), ("CYTHON_USE_SYS_MONITORING", "0")] if TRACED else []),
        *([("Py_LIMITED_API", "0x030C0000")] if ABI3 else []),
    ],
    extra_compile_args=[*COMPILE, *MATH],
    py_limited_api=ABI3,
)
# Not modules, although their files are named like some: beside _core, in every kind of installation.
shims = [
    Extension(
        f"mlxdist._{path.stem}",
        sources=[str(path)],
        depends=HEADERS,
        include_dirs=["include"],
        extra_compile_args=COMPILE,
        extra_link_args=LINK_SHIM,
        py_limited_api=ABI3,
    )
    for path in SHIMS
]

setup(
    ext_modules=[*cythonize([extension], compiler_directives={"linetrace": TRACED}), *shims],
    options={"bdist_wheel": {"py_limited_api": "cp312"}} if ABI3 else {},
)
