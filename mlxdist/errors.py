"""The exceptions of mlxdist.

Every message has the form ``[operation] what happened: what to do``. Invalid arguments raise the built-in
``ValueError`` or ``TypeError`` before anything is sent; what fails afterwards raises an ``Error``.
"""

import builtins


class Error(RuntimeError):
    """Base class of the exceptions below; a RuntimeError, as MLX's own errors are."""


class LoadError(Error):
    """No libmpi could be used: none was found, none belongs to the launcher, or its world has another size."""


class MPIError(Error):
    """A function of libmpi failed.

    Attributes:
        call: the MPI function, such as ``"MPI_Allreduce"``.
        code: the error code that it returned, whose meaning depends on the library.
        error_class: the error class of that code, such as ``"MPI_ERR_TRUNCATE"`` (MPI 4.1, section 9.4).
    """

    def __init__(self, message: str, call: str, code: int, error_class: str) -> None:
        super().__init__(message)
        self.call = call
        self.code = code
        self.error_class = error_class


class MismatchError(Error):
    """The ranks of a group made different calls: operation, reduction, dtype, length, root or order of calls differ.

    In a collective every rank raises it, and the group is broken. In ``recv`` only the receiver raises it, and the
    group remains usable.
    """


class PeerError(Error):
    """A rank that the call needs has died, or has given up an earlier call; the group is broken."""


class TimeoutError(Error, builtins.TimeoutError):
    """The group's timeout passed; the message names the ranks that have not reached the call, or do not go on.

    After a collective the group is broken. After ``send`` or ``recv`` it is, too, if the message was being transferred.
    """
