"""The exceptions of mlxdist.

Every message has the form ``[operation] what happened: what to do``. Wrong arguments raise the
built-in ``ValueError`` or ``TypeError`` before anything is sent; what goes wrong afterwards is an
``Error``.
"""

import builtins


class Error(RuntimeError):
    """Base class of everything mlxdist raises by itself; a RuntimeError, as MLX's own errors are."""


class LoadError(Error):
    """No libmpi could be used: none found, a foreign one, or one whose world is not the launcher's."""


class MPIError(Error):
    """A function of libmpi failed.

    Attributes:
        call: the MPI function, ``"MPI_Allreduce"``.
        code: the code that it returned; its meaning is the library's own.
        error_class: the class of that code in the standard's words, ``"MPI_ERR_TRUNCATE"``
            (MPI 4.1, section 9.4).
    """

    def __init__(self, message: str, call: str, code: int, error_class: str) -> None:
        super().__init__(message)
        self.call = call
        self.code = code
        self.error_class = error_class


class MismatchError(Error):
    """Ranks ask for different things: other operations, reductions, dtypes, lengths, roots, or another order of calls.

    After a collective every rank raises it, and the group cannot be used any more; after ``recv`` only the
    receiver, and the group can.
    """


class PeerError(Error):
    """A rank that is needed has died, or has given up an earlier call; the group cannot be used any more."""


class TimeoutError(Error, builtins.TimeoutError):
    """The time limit of the group passed; the text names who has not come.

    After a collective or a send the group cannot be used any more; after ``recv`` it can.
    """
