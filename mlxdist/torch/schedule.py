"""What an operation of torch.distributed comes to: calls of the core, then what makes their results the operation's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mlxdist import _core, work
from mlxdist.arrays import torch as arrays
from mlxdist.torch import tensors
from mlxdist.torch.work import Range, Work, make_way, pending

NOTHING = torch.empty(0)
NUMBERS = {name: number for number, name in enumerate(_core.OPERATION_NAMES)}
MESSAGES = (NUMBERS["send"], NUMBERS["recv_like"])


def span(x: Tensor, *, is_written: bool) -> Range:
    """From its first element to its last."""
    first, end, _ = arrays.memory(x)
    return Range(first, end, is_written)


class Schedule:
    """Calls of one group in order, and what follows when all have ended.

    Attributes:
        operation: of torch.distributed, for errors.
        results: what torch.distributed returns.
        apart: the group for messages; None: that of the calls.
    """

    __slots__ = ("_calls", "_copies", "_means", "_owners", "apart", "operation", "results")

    def __init__(self, operation: str, results: Sequence[Any]) -> None:
        self.operation, self.results = operation, results
        self.apart: _core.Group | None = None
        self._calls: list[tuple[Any, ...]] = []  # arguments of run_flat
        self._owners: list[tuple[Tensor, Tensor]] = []
        self._means: list[Tensor] = []
        self._copies: list[tuple[Tensor, Tensor]] = []

    def reads(self, x: Tensor) -> Tensor:
        """``x``, or a copy, as elements in C order."""
        if pending:
            make_way(span(x, is_written=False))
        return tensors.dense(self.operation, x)

    def writes(self, x: Tensor) -> Tensor:
        """``x``, or a copy that is copied back in the end, as elements in C order."""
        if pending:
            make_way(span(x, is_written=True))
        dense = tensors.dense(self.operation, x)
        if dense is not x:
            self._copies.append((x, dense))
        return dense

    def call(self, name: str, peer: int | None, x: Tensor, out: Tensor | None) -> None:
        """The operation ``name`` of mlxdist on elements that are only moved; out: None where there is no result."""
        kind, each = tensors.type_to_move(x)
        self._add(name, peer, None, kind, each, x, out, False)

    def reduce(self, name: str, peer: int | None, op: str | None, mean: bool, x: Tensor, out: Tensor | None) -> None:
        """The operation ``name`` of mlxdist, whose result is divided by the number of ranks for a mean."""
        self._add(name, peer, op, tensors.type_to_reduce(self.operation, x, mean), 1, x, out, mean)
        if mean and out is not None:
            self._means.append(out)

    def _add(
        self,
        name: str,
        peer: int | None,
        op: str | None,
        kind: int,
        each: int,
        x: Tensor,
        out: Tensor | None,
        mean: bool,
    ) -> None:
        into = (x.data_ptr(), -1) if out is None else (out.data_ptr(), out.numel() * each)
        self._owners.append((x, x if out is None else out))
        self._calls.append((NUMBERS[name], peer, op, kind, x.data_ptr(), x.numel() * each, *into, mean))

    def barrier(self) -> None:
        """A call without elements."""
        self._owners.append((NOTHING, NOTHING))
        self._calls.append((NUMBERS["barrier"], None, None, 0, 0, 0, 0, 0, False))

    def copy(self, target: Tensor, source: Tensor) -> None:
        """In the end, elements in C order into a tensor of as many; first, since ``writes`` may copy that on."""
        if pending:
            make_way(span(target, is_written=True))
        self._copies.insert(0, (target, source))

    def run(self, group: _core.Group, source: int = -1) -> Work:
        """Carry out all of it. source: the rank that a message comes from."""
        for call in self._calls:
            _core.run_flat(self._group_for(call, group), *call)
        self._finish(group.size())
        return Work(self.results, source)

    def start(self, group: _core.Group, source: int = -1) -> Work:
        """The same in the background."""
        calls = [_core.start_flat(self._owners, self._group_for(call, group), *call) for call in self._calls]
        under_way = work.Work([call for call in calls if call is not None], lambda: self._finish(group.size()))
        is_near = group.local_size() == group.size()
        return Work(self.results, source).follow(under_way, self._memory(), is_near)

    def _group_for(self, call: tuple[Any, ...], group: _core.Group) -> _core.Group:
        return self.apart if self.apart is not None and call[0] in MESSAGES else group

    def _memory(self) -> list[Range]:
        used = [span(target, is_written=True) for target, _ in self._copies]
        for call, (x, out) in zip(self._calls, self._owners, strict=True):
            used += (span(x, is_written=False), span(out, is_written=call[-2] >= 0))
        return used

    def _finish(self, size: int) -> None:
        if self._means or self._copies:
            with torch.inference_mode():  # without autograd, as every backend of torch.distributed
                for total in self._means:
                    total.div_(size)
                for target, source in self._copies:
                    target.copy_(source.view(target.shape))
