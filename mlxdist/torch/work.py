"""What an operation of torch.distributed returns: a call under way, or one that is over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import distributed


class Work(distributed.Work):
    """The results of a call, once ``wait`` has returned; ``complete`` makes them, and raises what went wrong."""

    def __init__(
        self, tensors: Sequence[Any], complete: Callable[[float | None], None] | None = None, source: int = -1
    ) -> None:
        super().__init__()
        self._tensors, self._complete, self._source = tensors, complete, source
        self._error: BaseException | None = None

    def wait(self, timeout: timedelta | None = None) -> bool:
        """Return when the results are there, or raise."""
        if self._complete is not None:
            complete, self._complete = self._complete, None
            try:
                complete(timeout.total_seconds() if timeout else None)
            except BaseException as error:
                self._error = error
                raise
        elif self._error is not None:
            raise self._error
        return True

    def synchronize(self) -> None:
        """As ``wait``."""
        self.wait()

    def is_completed(self) -> bool:
        """Whether it is over, well or not."""
        return self._complete is None

    def is_success(self) -> bool:
        """Whether the results are there."""
        return self._complete is None and self._error is None

    def exception(self) -> BaseException | None:
        """What ``wait`` has raised."""
        return self._error

    def result(self) -> Sequence[Any]:
        """The tensors that hold the results."""
        self.wait()
        return self._tensors

    def source_rank(self) -> int:
        """The rank in the group that a received message came from."""
        return self._source

    _source_rank = source_rank

    def get_future(self) -> torch.futures.Future[Any]:
        """The results as a future."""
        future: torch.futures.Future[Any] = torch.futures.Future()
        self.wait()
        future.set_result(list(self._tensors))
        return future
