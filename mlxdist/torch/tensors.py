"""The memory of tensors: as it is, where their elements lie one after the other, or a copy in which they do."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mlxdist import _core

TYPES: dict[torch.dtype, int] = {
    getattr(torch, name): number for number, name in enumerate(_core.DTYPES) if hasattr(torch, name)
}
BYTE = TYPES[torch.uint8]


def type_to_reduce(operation: str, x: Tensor, mean: bool) -> int:
    """The place in DTYPES of elements that are added."""
    kind = TYPES.get(x.dtype)
    if kind is None:
        raise TypeError(
            f"[{operation}] a tensor has dtype {x.dtype}, which cannot be added: pass one of {', '.join(_core.DTYPES)}"
        )
    if mean and not _core.divides(kind):
        raise TypeError(f"[{operation}] {x.dtype} cannot hold a mean: use ReduceOp.SUM")
    return kind


def type_to_move(x: Tensor) -> tuple[int, int]:
    """The place in DTYPES of elements that are only moved, and how many of that each is: bytes for unknown dtypes."""
    kind = TYPES.get(x.dtype)
    return (BYTE, x.element_size()) if kind is None else (kind, 1)


def dense(operation: str, x: Tensor) -> Tensor:
    """``x`` itself where its memory can be used as it is, else a copy in C order."""
    if x.layout is not torch.strided or x.is_nested:
        raise TypeError(f"[{operation}] a tensor has layout {x.layout}: pass a dense one, x.to_dense()")
    if not x.is_cpu:
        raise TypeError(f"[{operation}] a tensor is on {x.device}: this backend takes those on the CPU, pass x.cpu()")
    if x.is_contiguous() and not (x.is_neg() or x.is_conj()):
        if not x.data_ptr() and x.numel():
            raise TypeError(f"[{operation}] a {type(x).__name__} has no memory: pass a plain tensor, x.to_local()")
        return x
    return x.detach().resolve_conj().resolve_neg().contiguous()


def joined(parts: Sequence[Tensor]) -> Tensor | None:
    """All ``parts`` as one flat tensor over the same memory; None unless each begins where the one before ends."""
    first, at = parts[0], parts[0].data_ptr()
    storage = first.untyped_storage().data_ptr()  # else they may be neighbours by chance
    for part in parts:
        in_order = part.is_cpu and part.is_contiguous() and part.dtype is first.dtype and not part.is_neg()
        if not in_order or part.data_ptr() != at or part.untyped_storage().data_ptr() != storage:
            return None
        at += part.nbytes
    return first.detach().as_strided((sum(part.numel() for part in parts),), (1,))


def pieces(whole: Tensor, parts: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor]]:
    """Each part, and the stretch of the flat tensor ``whole`` that it corresponds to."""
    at = 0
    for part in parts:
        count = math.prod(part.shape)
        yield part, whole[at : at + count]
        at += count
