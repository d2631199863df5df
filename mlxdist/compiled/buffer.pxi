# Element types, and memory as the core sees it; a part of _core.pyx.

# NumPy's type number -> element type; UNSEEN until it is first looked up. Threads that do so at once find the same.
cdef enum:
    NO_TYPE = -1
    UNSEEN = -2
    TYPE_NUMBERS = 1024
cdef atomic_int type_of_number[TYPE_NUMBERS]
cdef int number
for number in range(TYPE_NUMBERS):
    store_int(&type_of_number[number], UNSEEN, memory_order_relaxed)


cdef int look_up_type(cnp.dtype dtype):
    # long and long long are two numbers with one name; bfloat16 (ml_dtypes) gets its number on import
    cdef int number = dtype.type_num
    found = DTYPES.index(dtype.name) if dtype.name in DTYPES else NO_TYPE
    if 0 <= number < TYPE_NUMBERS:
        store_int(&type_of_number[number], found, memory_order_relaxed)
    return found


cdef inline int element_type_of(cnp.dtype dtype):
    cdef int number = dtype.type_num
    cdef int found = UNSEEN
    if 0 <= number < TYPE_NUMBERS:
        found = load_int(&type_of_number[number], memory_order_relaxed)
    if found == UNSEEN:
        found = look_up_type(dtype)
    return found if cnp.PyArray_ISNBO(dtype.byteorder) else NO_TYPE


# By type, whatever the value, so that all ranks agree: NumPy itself makes 2**63 a uint64. A bool is an int too.
DTYPE_OF_NUMBER = {
    bool: numpy.dtype(numpy.bool_),
    int: numpy.dtype(numpy.int64),
    float: numpy.dtype(numpy.float64),
    complex: numpy.dtype(numpy.complex128),
}


# Of other frameworks' dtypes, whose names take long to make.
cdef dict type_of_foreign = {}


def type_of(dtype) -> int:
    """The index in DTYPES of a dtype of any framework; -1 if its arrays cannot be communicated."""
    if isinstance(dtype, cnp.dtype):
        return element_type_of(dtype)
    found = type_of_foreign.get(dtype)
    if found is None:
        name = str(dtype).rpartition(".")[2]  # torch.float32, mlx.core.float32
        found = type_of_foreign[dtype] = DTYPES.index(name) if name in DTYPES else NO_TYPE
    return found


@cython.final
cdef class Buffer:
    """Contiguous elements, and the object that keeps them alive; on_device: only libmpi can access them."""

    cdef void *address
    cdef readonly int64_t count
    cdef element_type type
    cdef readonly object owner
    cdef readonly tuple shape
    cdef readonly bint on_device

    def __init__(self, uintptr_t address, int64_t count, int type, owner, tuple shape, bint on_device=False):
        self.address = <void *>address
        self.count = count
        self.type = <element_type>type
        self.owner = owner
        self.shape = shape
        self.on_device = on_device

    @property
    def nbytes(self) -> int:
        return self.count * <int64_t>element_size(self.type)


def buffer_of(cnp.ndarray x) -> Buffer:
    """The elements of a C-contiguous array whose dtype is in DTYPES; no copy."""
    return Buffer(<uintptr_t>cnp.PyArray_DATA(x), cnp.PyArray_SIZE(x), element_type_of(x.descr), x, (<object>x).shape)
