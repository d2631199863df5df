"""What an operation of torch.distributed comes to: calls of the core, then copies to where the results belong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from mlxdist import _core
from mlxdist.torch import tensors

NUMBERS = {name: number for number, name in enumerate(_core.OPERATION_NAMES)}


class Schedule:
    """Calls of one group in order, and what to do when they are done.

    Attributes:
        operation: of torch.distributed, for errors.
        calls: the arguments of ``_core.run_flat`` after the group.
        results: what torch.distributed returns.
    """

    __slots__ = ("calls", "copies", "operation", "owners", "results")

    def __init__(self, operation: str, results: Sequence[Any]) -> None:
        self.operation, self.results = operation, results
        self.calls: list[tuple[Any, ...]] = []
        self.copies: list[tuple[Tensor, Tensor]] = []
        self.owners: list[Tensor] = []

    def add(
        self, name: str, peer: int | None, x: Tensor, out: Tensor, mean: bool = False, *, adds: bool = False
    ) -> None:
        """The operation ``name`` of mlxdist from ``x`` into ``out``, both from ``dense`` and of one dtype.

        mean: the sum is divided by the number of ranks. adds: dtypes that are only moved will not do.
        """
        kind, size = tensors.type_of(self.operation, x, adds)
        if mean and not _core.divides(kind):
            raise TypeError(f"[{self.operation}] {x.dtype} cannot hold a mean: use ReduceOp.SUM")
        self.owners += (x, out)
        self.calls.append(
            (NUMBERS[name], peer, kind, x.data_ptr(), x.numel() * size, out.data_ptr(), out.numel() * size, mean)
        )

    def source(self, x: Tensor) -> Tensor:
        """``x`` as elements in C order, to be read."""
        return tensors.dense(self.operation, x)

    def target(self, x: Tensor) -> Tensor:
        """``x`` as elements in C order, to be written; a copy is copied back in the end."""
        dense = tensors.dense(self.operation, x)
        if dense is not x:
            self.copies.append((x, dense))
        return dense

    def finish(self) -> None:
        """After the calls."""
        for target, source in self.copies:
            tensors.store(target, source)
