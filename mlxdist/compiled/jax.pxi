# The core's side for jaxlib, see jax_mpiwrapper.h; a part of _core.pyx.

cdef const jax_mpiwrapper *mpiwrapper_of_jax = NULL


def connect_jax(str path) -> bool:
    """Connect the library of this path to the core; False if jaxlib has not opened it as its MPI."""
    global mpiwrapper_of_jax
    mpiwrapper_of_jax = <const jax_mpiwrapper *>shim_connect(fsencode(path))
    return mpiwrapper_of_jax != NULL


def set_jax_clique(Group group) -> None:
    """XLA's next communicator is for ``group``, see jax_mpiwrapper.h; None: there is no next."""
    mpiwrapper_of_jax.set_clique(NULL if group is None else group.handle)
