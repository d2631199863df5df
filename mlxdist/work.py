"""Calls that were started with ``wait=False``, and what the program gets of them."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator, Sequence
from typing import Any

from mlxdist import _core, errors


class Work:
    """A call that is carried out while the program goes on, from an operation with ``wait=False``.

    Its arrays are in use until it is done: read and write them after ``wait()`` only. It can be awaited in asyncio:
    ``total = await mlxdist.all_sum(x, wait=False)``. One that is dropped is still carried out.

    As an MPI_Request of a nonblocking operation (MPI 4.1, sections 3.7 and 6.12).
    """

    def __init__(self, calls: Sequence[_core.Pending], finish: Callable[[], Any]) -> None:
        self._calls = calls
        self._finish: Callable[[], Any] | None = finish
        self._result: Any = None
        self._lock = threading.Lock()

    def done(self) -> bool:
        """Whether ``wait()`` would return or raise at once. Never waits.

        Example:
            >>> while not work.done():
            ...     compute_a_little()
        """
        return all(call.is_done() for call in self._calls)

    def wait(self, timeout_s: float | None = None) -> Any:
        """Wait until the call has ended; what it returns or raises without ``wait=False``.

        Args:
            timeout_s: seconds to wait; None: no limit but the timeout set by ``init``, which is for the call itself.

        Raises:
            TimeoutError: the call is still under way after ``timeout_s``. It goes on, and can be waited for again.
            KeyboardInterrupt: Ctrl-C during the wait. The call goes on here, too.
            MismatchError, PeerError, TimeoutError, MPIError: as for the call; also when repeated.

        Example:
            >>> work = mlxdist.all_sum(x, out=x, wait=False)
            >>> compute()
            >>> total = work.wait()
        """
        end_s = None if timeout_s is None else time.monotonic() + timeout_s
        for call in self._calls:
            call.wait(-1 if end_s is None else max(end_s - time.monotonic(), 0))
        with self._lock:
            if self._finish is not None:
                self._result = self._finish()
                self._finish = None
        return self._result

    def result(self) -> Any:
        """What ``wait()`` returns or raises, of a call that is done. Never waits.

        Raises:
            Error: it is not done. Otherwise as ``wait``.

        Example:
            >>> total = work.result() if work.done() else None
        """
        if not self.done():
            raise errors.Error("[result] the call is still under way: call wait(), or test done() first")
        return self.wait()

    def __await__(self) -> Generator[Any, None, Any]:
        for call in self._calls:
            if not call.is_done():
                yield from _ended(call).__await__()
        return self.wait()

    def __del__(self) -> None:
        for call in self._calls:
            call.drop()

    def __repr__(self) -> str:
        return f"<mlxdist.Work: {'done' if self.done() else 'under way'}>"


async def _ended(call: _core.Pending) -> None:
    """Let the event loop run until the call has ended."""
    import asyncio

    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    descriptor = os.dup(call.descriptor())  # several tasks may wait for it, and a loop has one reader for each

    def end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(descriptor, end)
    try:
        await ended
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)
