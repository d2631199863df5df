"""What an operation of torch.distributed returns: a call that is over, or under way in the background."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import torch
from torch import distributed

from mlxdist import work


class Range(NamedTuple):
    """Memory that a call reads, or writes too, from ``first`` to ``end``."""

    first: int
    end: int
    is_written: bool

    def excludes(self, other: Range) -> bool:
        """Whether the two calls cannot be under way at the same time."""
        return self.first < other.end and other.first < self.end and (self.is_written or other.is_written)


class Work(distributed.Work):
    """The results of an operation, which are there. source: the rank that a message comes from."""

    _under_way: work.Work | None = None
    _memory: Sequence[Range] = ()
    _is_near = True

    def __init__(self, results: Sequence[Any], source: int = -1) -> None:
        distributed.Work.__init__(self)
        self._results, self._source = results, source

    def follow(self, under_way: work.Work, memory: Sequence[Range], is_near: bool) -> Work:
        """They are there when ``under_way`` has ended, which uses ``memory`` till then. is_near: within a host."""
        self._under_way, self._memory, self._is_near = under_way, memory, is_near
        pending.append(self)
        return self

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Return when the results are there, or raise. After a TimeoutError of this wait the call goes on."""
        if self._under_way is not None:
            self._under_way.wait(timeout.total_seconds() if timeout else None)
        return True

    def synchronize(self) -> None:
        """As ``wait``."""
        self.wait()

    def is_completed(self) -> bool:
        """Whether it has ended, well or not; then the results are there."""
        if self._under_way is None:
            return True
        is_done = self._under_way.done()
        self.exception()  # makes the results of what has ended
        return is_done

    def is_success(self) -> bool:
        """Whether the results are there."""
        return self.is_completed() and self.exception() is None

    def exception(self) -> Exception | None:
        """Why it has failed; None also while it is under way."""
        if self._under_way is not None and self._under_way.done():
            try:
                self._under_way.result()
            except Exception as error:
                return error
        return None

    def result(self) -> Sequence[Any]:
        """The tensors that hold the results."""
        self.wait()
        return self._results

    def source_rank(self) -> int:
        """The rank in the group that a message comes from."""
        return self._source

    _source_rank = source_rank

    def get_future(self) -> torch.futures.Future[Any]:
        """The results as a future: what DDP takes.

        Within a host it waits: that takes less time than the threads do that would wait meanwhile, and what it raises
        comes out of ``loss.backward()`` as it is.
        """
        ended: torch.futures.Future[Any] = torch.futures.Future()
        if self._is_near or self.is_completed():
            ended.set_result(list(self.result()))
            return ended

        def wait() -> None:
            with contextlib.suppress(Exception):  # raised by result() below
                self.wait()
            ended.set_result(None)

        threading.Thread(target=wait, daemon=True).start()
        # C++ would not see what set_exception() passes on (torch 2.13).
        future: torch.futures.Future[Any] = ended.then(lambda _: list(self.result()))
        return future


# Also those that the program has dropped: results may have to be divided or copied in the end.
pending: list[Work] = []


def make_way(memory: Range) -> None:
    """Let calls end that use the same memory: programs expect them to come one after the other."""
    for each in list(pending):
        if any(memory.excludes(other) for other in each._memory):
            with contextlib.suppress(Exception):  # raised by its own wait(), and the group is broken
                each.wait()
        if each.is_completed():
            with contextlib.suppress(ValueError):  # another thread has done the same
                pending.remove(each)


class Coalesced(Work):
    """Several, as one."""

    def __init__(self, works: Sequence[Work]) -> None:
        super().__init__([])
        self._works = works

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Wait for all."""
        return all(each.wait(timeout) for each in self._works)

    def is_completed(self) -> bool:
        """Whether all have ended."""
        return all(each.is_completed() for each in self._works)
