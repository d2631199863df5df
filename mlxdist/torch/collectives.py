"""The collectives of torch.distributed as operations of mlxdist, for a rank and a number of ranks.

Wrong arguments raise here, before any communication.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed import ReduceOp

from mlxdist.arrays import torch as arrays
from mlxdist.torch import tensors
from mlxdist.torch.schedule import Schedule, span
from mlxdist.torch.work import make_way

# What a ReduceOp is in mlxdist, by its value, and whether the result is divided.
REDUCTIONS = {
    ReduceOp.SUM.value: ("sum", False),
    ReduceOp.AVG.value: ("sum", True),
    ReduceOp.MAX.value: ("max", False),
    ReduceOp.MIN.value: ("min", False),
    ReduceOp.PRODUCT.value: ("prod", False),
    ReduceOp.BAND.value: ("band", False),
    ReduceOp.BOR.value: ("bor", False),
}


def reduction(operation: str, options: Any) -> tuple[str, bool]:
    """The row of REDUCTIONS."""
    op = options.reduceOp.op
    row = REDUCTIONS.get(op.value)
    if row is None:
        known = [name for name, op in ReduceOp.RedOpType.__members__.items() if op.value in REDUCTIONS]
        raise ValueError(f"[{operation}] ReduceOp.{op.name} is not among mlxdist's: use {', '.join(known)}")
    return row


def check_sizes(operation: str, name: str, whole: Tensor, part: Tensor, size: int) -> None:
    """Refuse a ``whole``, called ``name``, that does not consist of ``size`` parts."""
    if whole.numel() != size * part.numel() or whole.dtype != part.dtype:
        raise ValueError(
            f"[{operation}] {name} is {tuple(whole.shape)} of {whole.dtype}, and a rank's part {tuple(part.shape)} of "
            f"{part.dtype}: pass {size} times as many elements of the same dtype, for {size} ranks"
        )


def check_list(operation: str, name: str, parts: Sequence[Tensor], size: int) -> None:
    """Refuse a list that has not one tensor for each rank."""
    if len(parts) != size:
        raise ValueError(f"[{operation}] {name} has {len(parts)} tensors: pass one for each of {size} ranks")


def all_reduce(schedule: Schedule, x: Tensor, options: Any) -> None:
    """In place."""
    op, mean = reduction(schedule.operation, options)
    elements = schedule.writes(x)
    schedule.reduce(f"all_{op}", None, None, mean, elements, elements)


def broadcast(schedule: Schedule, x: Tensor, root: int) -> None:
    """In place."""
    elements = schedule.writes(x)
    schedule.call("broadcast", root, elements, elements)


def all_gather(schedule: Schedule, output: Tensor, x: Tensor, size: int) -> None:
    """Into one tensor."""
    check_sizes(schedule.operation, "output", output, x, size)
    schedule.call("all_gather", None, schedule.reads(x), schedule.writes(output))


def all_gather_list(schedule: Schedule, outputs: Sequence[Tensor], x: Tensor, rank: int, size: int) -> None:
    """Into a tensor for each rank; where their lengths differ, by a broadcast from each."""
    check_list(schedule.operation, "the list of outputs", outputs, size)
    check_sizes(schedule.operation, "this rank's output", outputs[rank], x, 1)
    if any(output.numel() != x.numel() for output in outputs):
        make_way(span(outputs[rank], is_written=True))
        arrays.copyto(outputs[rank], schedule.reads(x).view(outputs[rank].shape))
        for root, output in enumerate(outputs):
            broadcast(schedule, output, root)
        return
    all_gather(schedule, into_list(schedule, outputs, x), x, size)


def reduce_scatter(schedule: Schedule, output: Tensor, x: Tensor, options: Any, size: int) -> None:
    """This rank's part of the reduction of one tensor."""
    check_sizes(schedule.operation, "input", x, output, size)
    op, mean = reduction(schedule.operation, options)
    schedule.reduce("sum_scatter", None, op, mean, schedule.reads(x), schedule.writes(output))


def flattened(schedule: Schedule, parts: Sequence[Tensor]) -> Tensor:
    """All parts in one flat tensor: over their memory if they lie so, else a copy."""
    whole = tensors.joined(parts)
    return torch.cat([schedule.reads(part).detach().view(-1) for part in parts]) if whole is None else whole


def reduce(schedule: Schedule, x: Tensor, options: Any, rank: int) -> None:
    """In place on the root; other ranks' tensors stay as they are."""
    op, mean = reduction(schedule.operation, options)
    root = options.rootRank
    elements = schedule.writes(x) if rank == root else schedule.reads(x)
    schedule.reduce("reduce", root, op, mean, elements, elements if rank == root else None)


def gather(schedule: Schedule, outputs: Sequence[Tensor], x: Tensor, root: int, rank: int, size: int) -> None:
    """Into a tensor for each rank, on the root."""
    whole = None
    if rank == root:
        check_list(schedule.operation, "the list of outputs", outputs, size)
        whole = into_list(schedule, outputs, x)
        check_sizes(schedule.operation, "the list of outputs", whole, x, size)
    schedule.call("gather", root, schedule.reads(x), whole)


def into_list(schedule: Schedule, outputs: Sequence[Tensor], x: Tensor) -> Tensor:
    """One flat tensor over the memory of a list; or a new one, which is copied there in the end."""
    whole = tensors.joined(outputs)
    if whole is None:
        whole = x.new_empty(sum(output.numel() for output in outputs))
        for output, piece in tensors.pieces(whole, outputs):
            schedule.copy(output, piece)
    return whole


def scatter(schedule: Schedule, output: Tensor, parts: Sequence[Tensor], root: int, rank: int, size: int) -> None:
    """From a tensor for each rank, on the root."""
    if rank == root:
        check_list(schedule.operation, "the list of inputs", parts, size)
        whole = schedule.reads(flattened(schedule, parts))
        check_sizes(schedule.operation, "the list of inputs", whole, output, size)
    else:
        whole = output.new_empty(size * output.numel())  # its values are not used
    schedule.call("scatter", root, whole, schedule.writes(output))


def all_to_all_single(schedule: Schedule, output: Tensor, x: Tensor, size: int) -> None:
    """Equal parts of one tensor."""
    check_sizes(schedule.operation, "output", output, x, 1)
    if x.dim() == 0 or x.shape[0] % size:
        raise ValueError(
            f"[{schedule.operation}] axis 0 of {tuple(x.shape)} is not divisible by {size}: pass split sizes"
        )
    schedule.call("all_to_all", None, schedule.reads(x), schedule.writes(output))


def all_to_all(schedule: Schedule, outputs: Sequence[Tensor], parts: Sequence[Tensor], rank: int, size: int) -> None:
    """Part j of each rank to rank j, in messages: their lengths may all differ.

    In rounds, in each of which ranks meet in pairs: the lower one sends first, so none waits in a circle.
    """
    check_list(schedule.operation, "the list of inputs", parts, size)
    check_list(schedule.operation, "the list of outputs", outputs, size)
    check_sizes(schedule.operation, "this rank's output", outputs[rank], parts[rank], 1)
    schedule.barrier()  # finds ranks that make another call
    schedule.copy(outputs[rank], schedule.reads(parts[rank]))
    for peer in ((meeting - rank) % size for meeting in range(size)):
        for sends in () if peer == rank else (rank < peer, rank > peer):
            if sends and parts[peer].numel():
                schedule.call("send", peer, schedule.reads(parts[peer]), None)
            elif not sends and outputs[peer].numel():
                target = schedule.writes(outputs[peer])
                schedule.call("recv_like", peer, target, target)


def divided(operation: str, x: Tensor, lengths: Sequence[int], size: int) -> list[Tensor]:
    """The parts along axis 0, of the lengths that were passed; without any, of equal lengths."""
    if not lengths and x.shape[0] % size == 0:
        lengths = [x.shape[0] // size] * size
    if len(lengths) != size or sum(lengths) != x.shape[0]:
        raise ValueError(
            f"[{operation}] split sizes {list(lengths)} for axis 0 of {tuple(x.shape)}: pass {size} that add up to it"
        )
    return list(x.detach().split(list(lengths)))
