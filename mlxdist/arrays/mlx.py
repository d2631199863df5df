"""MLX's arrays: lazy, so each operation is MLX's own, over a group that runs on mlxdist.

No array is read or written here: MLX does that when a result is evaluated.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Sequence
from typing import Any

from mlxdist import _core
from mlxdist.mlx import backend


def owns(x: object) -> bool:
    """Whether ``x`` is an mx.array; does not import MLX."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(x, mx.array)


def owns_dtype(dtype: object) -> bool:
    """Whether ``dtype`` is one of MLX's."""
    mx = sys.modules.get("mlx.core")
    return mx is not None and isinstance(dtype, mx.Dtype)


def check(call: str, count: int, out: object = None) -> None:
    """Refuse what MLX cannot do."""
    if out is not None:
        raise TypeError(f"[{call}] MLX's arrays cannot be written to: use the result instead of out=")
    _core.check_mlx_count(call, count)


def run(call: str, x: Any, peer: Any, group: _core.Group, stream: Any, op: str | None = None) -> Any:
    """The operation ``call`` on ``x``, once its result is evaluated."""
    import mlx.core as mx

    backend.attach()
    if call in ("all_gather", "gather"):
        x = mx.atleast_1d(x)  # in a group of one MLX returns a number as it is
    if call == "reduce":
        return reduce(x, (peer, op or "sum"), group, stream)
    ours: dict[str, Any] = {
        "sum_scatter": sum_scatter,
        "broadcast": broadcast,
        "sendrecv": sendrecv,
        "all_to_all": all_to_all,
        "gather": gather,
        "scatter": scatter,
    }
    if call in ours:
        return ours[call](x, peer, group, stream)
    if call in DERIVATIVES:
        return reduction(call, x, group, stream)
    if call not in backend.calls:
        raise TypeError(f"[{call}] MLX has no {call}: pass numpy.array(x)")
    peers = (peer,) if call in ("send", "recv_like") else ()
    return backend.calls[call](x, *peers, group=group, stream=stream)


def receive(shape: tuple[int, ...], dtype: Any, src: int, group: _core.Group, stream: Any) -> Any:
    """MLX's recv."""
    backend.attach()
    return backend.calls["recv"](shape, dtype, src, group=group, stream=stream)


def average(xs: Sequence[Any], group: _core.Group, stream: Any, digest: int, wire: int) -> list[Any]:
    """The means of several arrays of one dtype over all ranks, by one sum; ranks raise if digests or wires differ."""
    backend.attach()
    over = backend.group_of(group, wire=wire, digest=digest)
    flat = _joined("average_gradients", xs)
    return _divided(backend.calls["all_sum"](flat, group=over, stream=stream) / group.size(), xs)


def broadcast_joined(xs: Sequence[Any], src: int, group: _core.Group, stream: Any, digest: int) -> list[Any]:
    """Rank ``src``'s arrays of one dtype, by one broadcast; ranks raise if digests differ."""
    backend.attach()
    return _divided(broadcast(_joined("broadcast", xs), src, group, stream, digest), xs)


def _joined(call: str, xs: Sequence[Any]) -> Any:
    import mlx.core as mx

    flat = xs[0] if len(xs) == 1 else mx.concatenate([x.reshape(-1) for x in xs])
    check(call, flat.size)
    return flat


def _divided(flat: Any, xs: Sequence[Any]) -> list[Any]:
    """The parts of what was made of ``_joined``, in the shapes of ``xs``."""
    import mlx.core as mx

    if len(xs) == 1:
        return [flat]
    *ends, _ = itertools.accumulate(x.size for x in xs)
    return [part.reshape(x.shape) for part, x in zip(mx.split(flat, ends), xs, strict=True)]


def others_product(x: Any, group: _core.Group, stream: Any) -> Any:
    """The product of the other ranks' x: by no division, since elements may be zero."""
    import mlx.core as mx

    @mx.custom_function
    def product(x: Any) -> Any:
        each = backend.calls["all_gather"](x[None], group=group, stream=stream)
        wide = each.astype(mx.float32) if x.dtype in (mx.float16, mx.bfloat16) else each
        others = [*range(group.rank()), *range(group.rank() + 1, group.size())]
        return functools.reduce(mx.multiply, (wide[rank] for rank in others), mx.ones_like(wide[0])).astype(x.dtype)

    @product.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:  # MLX's rule for all_gather joins another axis (MLX 0.32.4)
        return others_product(x, group, stream), axis

    return product(x)


def nothing(x: Any, group: _core.Group, stream: Any) -> Any:
    """Bits have no derivative, which MLX's own operations on them return as 0."""
    import mlx.core as mx

    return mx.zeros_like(x)


# The reductions that MLX lacks, each with the derivative of its result by this rank's x.
DERIVATIVES: dict[str, Callable[[Any, _core.Group, Any], Any]] = {
    "all_prod": others_product,
    "all_band": nothing,
    "all_bor": nothing,
}


def reduction(call: str, x: Any, group: _core.Group, stream: Any) -> Any:
    """One of DERIVATIVES; each rank's gradient is that of its own result alone, by the rule of MLX's all_sum."""
    import mlx.core as mx

    all_sum = backend.calls["all_sum"]
    over = backend.group_of(group, "other reduction", _core.REDUCTION_NAMES.index(call))

    @mx.custom_function
    def reduced(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)

    @reduced.vjp
    def returned(primal: Any, cotangent: Any, output: Any) -> Any:
        derivative = DERIVATIVES[call](primal, group, stream)
        _, (gradient,) = mx.vjp(lambda x: x * derivative, [primal], [cotangent])  # MLX's conjugates, of complex numbers
        return gradient

    @reduced.jvp
    def pushed(primal: Any, tangent: Any) -> Any:
        return all_sum(tangent * DERIVATIVES[call](primal, group, stream), group=group, stream=stream)

    @reduced.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return reduction(call, x, group, stream), axis

    return reduced(x)


def sum_scatter(x: Any, peer: int, group: _core.Group, stream: Any) -> Any:
    """This rank's part of the sum; its cotangent is gathered from all ranks."""
    import mlx.core as mx

    length = x.shape[0] // group.size()
    start = group.rank() * length
    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "sum_scatter")

    @mx.custom_function
    def scattered(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)[start : start + length]

    @scattered.vjp
    def gathered(primals: Any, cotangent: Any, output: Any) -> Any:
        return backend.calls["all_gather"](cotangent, group=group, stream=stream)

    @scattered.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:  # the batch goes last: a rank's part is contiguous
        return sum_scatter(mx.moveaxis(x, axis, -1), peer, group, stream), x.ndim - 1

    return scattered(x)


def broadcast(x: Any, src: int, group: _core.Group, stream: Any, digest: int = 0) -> Any:
    """Rank ``src``'s x; the cotangents of all ranks are summed on ``src``."""
    import mlx.core as mx

    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "broadcast", src, digest=digest)

    @mx.custom_function
    def spread(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)

    @spread.vjp
    def collected(primals: Any, cotangent: Any, output: Any) -> Any:
        total = all_sum(cotangent, group=group, stream=stream)
        return mx.where(group.rank() == src, total, 0)  # depends on total everywhere, so that every rank takes part

    @spread.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:  # without a rule of its own MLX would forget the vjp
        return broadcast(x, src, group, stream, digest), axis

    return spread(x)


def sendrecv(x: Any, peers: tuple[int, int], group: _core.Group, stream: Any) -> Any:
    """Rank src's x, while rank dst gets this one; cotangents travel back the same way."""
    import mlx.core as mx

    dst, src = peers
    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "sendrecv", dst * group.size() + src)

    @mx.custom_function
    def exchanged(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)

    @exchanged.vjp
    def returned(primals: Any, cotangent: Any, output: Any) -> Any:
        return sendrecv(cotangent, (src, dst), group, stream)

    @exchanged.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return sendrecv(x, peers, group, stream), axis

    return exchanged(x)


def all_to_all(x: Any, peer: Any, group: _core.Group, stream: Any) -> Any:
    """Block i from rank i; cotangents travel back the same way."""
    import mlx.core as mx

    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "all_to_all")

    @mx.custom_function
    def exchanged(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)

    @exchanged.vjp
    def returned(primals: Any, cotangent: Any, output: Any) -> Any:
        return all_to_all(cotangent, peer, group, stream)

    @exchanged.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return all_to_all(mx.moveaxis(x, axis, -1), peer, group, stream), x.ndim - 1

    return exchanged(x)


def gather(x: Any, dst: int, group: _core.Group, stream: Any) -> Any:
    """All ranks' x on rank ``dst``, x itself on the others; each rank gets its part of the cotangent of ``dst``."""
    import mlx.core as mx

    is_root, over = group.rank() == dst, backend.group_of(group, "gather", dst)
    native = backend.calls["all_gather" if is_root else "all_sum"]

    @mx.custom_function
    def gathered(x: Any) -> Any:
        return native(x, group=over, stream=stream)

    @gathered.vjp
    def scattered(primals: Any, cotangent: Any, output: Any) -> Any:
        whole = cotangent if is_root else mx.concatenate([cotangent] * group.size())  # not used, but has the shape
        return scatter(whole, dst, group, stream)

    @gathered.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return gather(mx.moveaxis(x, axis, -1), dst, group, stream), x.ndim - 1

    return gathered(x)


def scatter(x: Any, src: int, group: _core.Group, stream: Any) -> Any:
    """This rank's part of rank ``src``'s x, from which the others are cut off; cotangents are gathered on ``src``."""
    import mlx.core as mx

    length = x.shape[0] // group.size()
    start = length * group.rank()
    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "scatter", src)

    @mx.custom_function
    def scattered(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)[start : start + length]

    @scattered.vjp
    def gathered(primals: Any, cotangent: Any, output: Any) -> Any:
        whole = gather(cotangent, src, group, stream)
        if group.rank() != src:
            whole = mx.concatenate([whole] * group.size())
        return mx.where(group.rank() == src, whole, 0)  # depends on it everywhere, so that every rank takes part

    @scattered.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return scatter(mx.moveaxis(x, axis, -1), src, group, stream), x.ndim - 1

    return scattered(x)


def reduce(x: Any, to: tuple[int, str], group: _core.Group, stream: Any) -> Any:
    """The reduction on one rank, x itself on the others; of a sum, all get the cotangent of that rank."""
    import mlx.core as mx

    dst, op = to
    root = dst * len(_core.REDUCTION_OF) + _core.REDUCTION_OF[op]
    all_sum, over = backend.calls["all_sum"], backend.group_of(group, "reduce", root)

    @mx.custom_function
    def reduced(x: Any) -> Any:
        return all_sum(x, group=over, stream=stream)

    @reduced.vjp
    def spread(primals: Any, cotangent: Any, output: Any) -> Any:
        if op != "sum":
            raise ValueError(f'[reduce] op="{op}" has no gradient: pass op="sum"')
        return broadcast(cotangent, dst, group, stream)

    @reduced.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return reduce(x, to, group, stream), axis

    return reduced(x)
