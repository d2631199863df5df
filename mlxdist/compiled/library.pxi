# An opened libmpi; a part of _core.pyx.

@cython.final
cdef class Library:
    """An opened libmpi that has every function that is needed; not necessarily initialized.

    Attributes:
        path: the file it came from, as the loader reports it.
        family: "openmpi", "mpich" or "standard", see abi.h.
        version: the first line that MPI_Get_library_version returns.
    """

    cdef void *handle
    cdef const transport *transport
    cdef readonly str path, family, version

    @staticmethod
    def open(str path, int64_t max_count, bint already_open=False) -> Library:
        """Open ``path``; a LoadError says why it cannot be used."""
        cdef Library library = Library()
        cdef outcome why
        cdef Dl_info info
        cdef abi_family family
        cdef char[512] text
        library.handle = dlopen(fsencode(path), RTLD_NOW | RTLD_LOCAL | (RTLD_NOLOAD if already_open else 0))
        if library.handle == NULL:
            why_not = dlerror()
            raise errors.LoadError(fsdecode(why_not) if why_not != NULL else f"{path} is not open")
        library.transport = runtime_load(library.handle, max_count, &why)
        if library.transport == NULL:
            dlclose(library.handle)
            raise errors.LoadError(why.text.decode())
        abi_identify(library.handle, &family)
        library.family = FAMILIES[family]
        library.transport.version(text, sizeof(text))
        library.version = text.decode(errors="replace")
        dladdr(dlsym(library.handle, "MPI_Get_library_version"), &info)
        library.path = fsdecode(info.dli_fname)
        return library

    def close(self) -> None:
        """Close a library that was examined and not started."""
        dlclose(self.handle)


def open_silently(str path) -> bool:
    """Open a library that another one needs and looks up by its bare name; whether that worked."""
    return dlopen(fsencode(path), RTLD_NOW | RTLD_LOCAL) != NULL
