"""PyTorch tensors: in place on the CPU, and on a GPU if libmpi reads its memory; else staged through the host."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from mlxdist import _core
from mlxdist.arrays import elements, gpu


def owns(x: object) -> bool:
    """Any tensor, of subclasses too."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(x, torch.Tensor)


def as_array(call: str, x: Any) -> Any:
    """A tensor with memory of its own, whose gradient nobody wants."""
    return _checked(call, "x", x)


def _checked(call: str, name: str, x: Any) -> Any:
    torch = sys.modules["torch"]
    if x.layout is not torch.strided:
        raise TypeError(f"[{call}] {name} has layout {x.layout}: pass {name}.to_dense()")
    if x.is_nested:
        raise TypeError(f"[{call}] {name} is a nested tensor: pass its parts, {name}.unbind()")
    if x.requires_grad and torch.is_grad_enabled():
        raise TypeError(
            f"[{call}] {name} requires grad, which this call does not track: pass {name}.detach(), or call it under "
            "torch.no_grad()"
        )
    elements.check(call, _name(x.dtype))
    try:
        has_memory = x.data_ptr() != 0 or x.numel() == 0
    except RuntimeError:  # inside vmap and torch.compile
        has_memory = False
    if not has_memory:
        raise TypeError(f"[{call}] {name} is a {type(x).__name__} without memory: pass a plain tensor with values")
    return x


def _name(dtype: Any) -> str:
    return str(dtype).removeprefix("torch.")


def template(call: str, dtype: Any) -> Any:
    """On torch's default device."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(dtype, torch.dtype):
        return None
    elements.check(call, _name(dtype))
    return torch.empty(0, dtype=dtype)


def writable(call: str, out: Any) -> Any:
    """Autograd is told of the change, so that backward() does not mistake the new values for those it saved."""
    _checked(call, "out", out)
    if out.is_conj() or out.is_neg():
        raise ValueError(f"[{call}] out is a lazy conjugate or negative: pass a tensor that holds its values")
    if not out.is_contiguous():
        raise ValueError(f"[{call}] out is not contiguous: pass a tensor in C order")
    changed(out)
    return out


def memory(array: Any) -> tuple[int, int, bool]:
    """By its strides."""
    itemsize = array.element_size()
    return elements.bounds(array.data_ptr(), array.shape, [itemsize * stride for stride in array.stride()], itemsize)


def synchronize(call: str, array: Any, stream: Any) -> None:
    """``stream`` is the torch.cuda.Stream that produces x, if not the current one."""
    if array.device.type == "cpu":
        elements.no_stream(call, "tensors on the CPU", stream)
    elements.finish(call, stream)


def _is_direct(x: Any) -> bool:
    return x.device.type == "cpu" or gpu.is_read_by_mpi(x.device.type)


def _buffer(x: Any) -> _core.Buffer:
    on_device = x.device.type != "cpu"
    if on_device:  # torch reuses memory that pending work still reads
        sys.modules["torch"].cuda.current_stream(x.device).synchronize()
    return _core.Buffer(x.data_ptr(), x.numel(), _core.type_of(x.dtype), x, tuple(x.shape), on_device=on_device)


def as_buffer(array: Any) -> _core.Buffer:
    """Lazy conjugates and negatives are resolved first."""
    dense = array.resolve_conj().resolve_neg().contiguous()
    return _buffer(dense if _is_direct(dense) else dense.cpu())


def empty_like(array: Any, shape: tuple[int, ...]) -> _core.Buffer:
    """A plain tensor, for subclasses too."""
    device = array.device if _is_direct(array) else "cpu"
    return _buffer(sys.modules["torch"].empty(shape, dtype=array.dtype, device=device))


def result(array: Any, buffer: _core.Buffer) -> Any:
    """On the device of ``array``."""
    return buffer.owner.to(array.device)


def copyto(target: Any, source: Any) -> None:
    """Torch's own copy, between devices too; inference tensors can be written only in inference mode."""
    torch = sys.modules["torch"]
    with torch.inference_mode():
        target.copy_(source)
    if target.device.type == "cuda":
        torch.cuda.current_stream(target.device).synchronize()


def is_changeable(array: Any) -> bool:
    """Unless it was expanded, so that several elements share one place in memory."""
    apart = (stride or length < 2 for length, stride in zip(array.shape, array.stride(), strict=True))
    return array.numel() == 0 or all(apart)


def changed(array: Any) -> None:
    """Autograd keeps a version of each tensor."""
    if not array.is_inference():
        sys.modules["torch"].autograd.graph.increment_version(array)


def is_on_device(array: Any) -> bool:
    """Any device but the CPU."""
    return bool(array.device.type != "cpu")


def joined(arrays: Sequence[Any]) -> Any:
    """On their device."""
    return sys.modules["torch"].cat([array.reshape(-1) for array in arrays])


def quotient(array: Any, n: int) -> Any:
    """Torch's own division."""
    return array / n
