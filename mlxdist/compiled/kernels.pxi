# The kernels, without any communication; a part of _core.pyx.

def use_kernels(str name) -> str:
    """Use the kernels of this name for reductions, "" for the best that the processor supports; returns their name."""
    if kernels_choose(name.encode()):
        usable = ", ".join(kernels())
        raise ValueError(f"[init] there are no kernels {name!r} for this processor: choose one of {usable}")
    return kernels_chosen().decode()


def kernels() -> tuple:
    """The names of all that were built, best first."""
    cdef int i = 0
    names = []
    while kernels_variant(i) != NULL:
        names.append(kernels_variant(i).decode())
        i += 1
    return tuple(names)


def reduce_locally(int op, inputs, cnp.ndarray output) -> None:
    """``output`` = the reduction ``REDUCTION_NAMES[op]`` of ``inputs``: contiguous, of one dtype and length."""
    cdef const void *pointers[64]
    cdef int i
    if not 0 < len(inputs) <= 64:
        raise ValueError(f"[reduce_locally] {len(inputs)} inputs: pass 1 to 64")
    for i, x in enumerate(inputs):
        pointers[i] = cnp.PyArray_DATA(x)
    c_reduce(<element_type>element_type_of(output.descr), <reduction>op, pointers, len(inputs),
             cnp.PyArray_DATA(output), cnp.PyArray_SIZE(output))


def divide_locally(cnp.ndarray numbers, int n) -> None:
    """Divide a contiguous array of floats or complex numbers by ``n`` in place."""
    divide_by(<element_type>element_type_of(numbers.descr), cnp.PyArray_DATA(numbers), cnp.PyArray_SIZE(numbers), n)


def narrow_locally(cnp.ndarray numbers, cnp.ndarray narrowed) -> None:
    """``narrowed``, of 16-bit floats, = ``numbers``, of float32: contiguous, of one length."""
    narrow(<element_type>element_type_of(narrowed.descr), <float *>cnp.PyArray_DATA(numbers),
           cnp.PyArray_DATA(narrowed), cnp.PyArray_SIZE(numbers))


def widen_locally(cnp.ndarray narrowed, cnp.ndarray numbers) -> None:
    """The other way round."""
    widen(<element_type>element_type_of(narrowed.descr), cnp.PyArray_DATA(narrowed),
          <float *>cnp.PyArray_DATA(numbers), cnp.PyArray_SIZE(numbers))
