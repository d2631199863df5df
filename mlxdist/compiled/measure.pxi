# What `mlxdist bench` needs of the core; a part of _core.pyx.

REWRITTEN = MEASURE_BYTE


def run_raw(Group group, int operation, Buffer x, Buffer out, int64_t repeats, bint rewrite=True) -> float:
    """Seconds that libmpi alone takes for ``repeats`` calls made from C: sums, and rank 0's broadcasts. See core.h."""
    cdef outcome why
    cdef call made
    cdef double spent_s = 0
    cdef int failed
    made = flat_call(<int>operation, 0, x.type, 0, x.count)
    with nogil:
        failed = group_run_raw(group.handle, &made, x.address, out.address, repeats, rewrite, &spent_s, &why)
    if failed:
        fail("bench", &why)
    raise_interruption()
    return spent_s


def copy_memory(Buffer out, Buffer x, bint non_temporal, int64_t repeats) -> float:
    """Seconds of ``repeats`` copies of ``x`` into ``out``, which is as long."""
    cdef double spent_s
    cdef size_t nbytes = x.nbytes
    with nogil:
        spent_s = measure_copy_s(out.address, x.address, nbytes, non_temporal, repeats)
    return spent_s
