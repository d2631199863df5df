# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, auto_pickle=False
# cython: freethreading_compatible=True
"""The compiled core: opens libmpi, owns groups, and runs operations on pointers with the GIL released.

It knows NumPy and no other framework: any other array is a ``Buffer``. Each file that is included here has one subject.
Nothing in it relies on the GIL: see *Without the GIL* in docs/internals.md.
"""

import _signal
import math
import operator
import sys
import threading
import types
from os import fsdecode, fsencode, pipe

import numpy

from mlxdist import errors

cimport cython
from cpython.buffer cimport PyBuffer_FillInfo
from cpython.bytes cimport PyBytes_AsString, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.object cimport Py_TYPE, PyObject
from cpython.pycapsule cimport PyCapsule_New
from cpython.ref cimport Py_INCREF
from libc.stdint cimport int64_t, uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset

cimport numpy as cnp

cnp.import_array()


MLX_KINDS = {
    "reduction": KIND_REDUCTION, "other reduction": KIND_OTHER_REDUCTION, "sum_scatter": KIND_SUM_SCATTER,
    "broadcast": KIND_BROADCAST, "sendrecv": KIND_SENDRECV, "all_to_all": KIND_ALL_TO_ALL,
    "gather": KIND_GATHER, "scatter": KIND_SCATTER, "reduce": KIND_REDUCE,
}
FAMILIES = {ABI_OPENMPI: "openmpi", ABI_MPICH: "mpich", ABI_STANDARD: "standard"}
THREAD_LEVELS = ("MPI_THREAD_SINGLE", "MPI_THREAD_FUNNELED", "MPI_THREAD_SERIALIZED", "MPI_THREAD_MULTIPLE")
REDUCTION_NAMES = tuple(call_names[i].decode() for i in range(REDUCTIONS))
OPERATION_OF = {operation_names[i].decode(): i for i in range(OPERATIONS)}  # of MPI and the core
DTYPES = tuple(numpy_names[i].decode() for i in range(ELEMENT_TYPES))


include "compiled/outcome.pxi"
include "compiled/buffer.pxi"
include "compiled/memory.pxi"
include "compiled/kernels.pxi"
include "compiled/library.pxi"
include "compiled/group.pxi"
include "compiled/mlx.pxi"
include "compiled/jax.pxi"
include "compiled/shared.pxi"
include "compiled/work.pxi"
include "compiled/operations.pxi"
include "compiled/xla.pxi"
include "compiled/fast_path.pxi"
include "compiled/gradients.pxi"
include "compiled/measure.pxi"
