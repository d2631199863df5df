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


def _with_rules(
    x: Any,
    native: Callable[[Any], Any],
    cotangent_of: Callable[[Any, Any], Any],
    again: Callable[[Any], Any],
    *,
    moves_batch: bool = False,
    tangent_of: Callable[[Any, Any], Any] | None = None,
) -> Any:
    """``native`` of x, with the gradients of the operation that it stands for.

    cotangent_of, tangent_of: from x and the other one. again: the operation as a whole, for vmap, without a rule for
    which MLX would forget the others. moves_batch: the batch goes last, so that a rank's part is contiguous.
    """
    import mlx.core as mx

    @mx.custom_function
    def operation(x: Any) -> Any:
        return native(x)

    @operation.vjp
    def returned(primal: Any, cotangent: Any, output: Any) -> Any:
        return cotangent_of(primal, cotangent)

    @operation.vmap
    def batched(x: Any, axis: int) -> tuple[Any, int]:
        return (again(mx.moveaxis(x, axis, -1)), x.ndim - 1) if moves_batch else (again(x), axis)

    if tangent_of is not None:
        operation.jvp(tangent_of)
    return operation(x)


def _all_sum_over(group: Any, stream: Any) -> Callable[[Any], Any]:
    return functools.partial(backend.calls["all_sum"], group=group, stream=stream)


def reduction(call: str, x: Any, group: _core.Group, stream: Any) -> Any:
    """One of DERIVATIVES; each rank's gradient is that of its own result alone, by the rule of MLX's all_sum."""
    import mlx.core as mx

    over = backend.group_of(group, "other reduction", _core.REDUCTION_NAMES.index(call))

    def cotangent_of(primal: Any, cotangent: Any) -> Any:
        derivative = DERIVATIVES[call](primal, group, stream)
        _, (gradient,) = mx.vjp(lambda x: x * derivative, [primal], [cotangent])  # MLX's conjugates, of complex numbers
        return gradient

    def tangent_of(primal: Any, tangent: Any) -> Any:
        return _all_sum_over(group, stream)(tangent * DERIVATIVES[call](primal, group, stream))

    return _with_rules(
        x,
        _all_sum_over(over, stream),
        cotangent_of,
        lambda x: reduction(call, x, group, stream),
        tangent_of=tangent_of,
    )


def sum_scatter(x: Any, peer: int, group: _core.Group, stream: Any) -> Any:
    """This rank's part of the sum; its cotangent is gathered from all ranks."""
    total_of = _all_sum_over(backend.group_of(group, "sum_scatter"), stream)
    return _with_rules(
        x,
        lambda x: _own_part(total_of(x), group),
        lambda _, cotangent: backend.calls["all_gather"](cotangent, group=group, stream=stream),
        lambda x: sum_scatter(x, peer, group, stream),
        moves_batch=True,
    )


def _own_part(x: Any, group: _core.Group) -> Any:
    length = x.shape[0] // group.size()
    return x[length * group.rank() : length * (group.rank() + 1)]


def broadcast(x: Any, src: int, group: _core.Group, stream: Any, digest: int = 0) -> Any:
    """Rank ``src``'s x; the cotangents of all ranks are summed on ``src``."""
    over = backend.group_of(group, "broadcast", src, digest=digest)
    return _with_rules(
        x,
        _all_sum_over(over, stream),
        lambda _, cotangent: _only_on(src, _all_sum_over(group, stream)(cotangent), group),
        lambda x: broadcast(x, src, group, stream, digest),
    )


def _only_on(rank: int, x: Any, group: _core.Group) -> Any:
    """Zero elsewhere, but not without x, so that every rank takes part in what made it."""
    import mlx.core as mx

    return mx.where(group.rank() == rank, x, 0)


def sendrecv(x: Any, peers: tuple[int, int], group: _core.Group, stream: Any) -> Any:
    """Rank src's x, while rank dst gets this one; cotangents travel back the same way."""
    dst, src = peers
    return _with_rules(
        x,
        _all_sum_over(backend.group_of(group, "sendrecv", dst * group.size() + src), stream),
        lambda _, cotangent: sendrecv(cotangent, (src, dst), group, stream),
        lambda x: sendrecv(x, peers, group, stream),
    )


def all_to_all(x: Any, peer: Any, group: _core.Group, stream: Any) -> Any:
    """Block i from rank i; cotangents travel back the same way."""
    return _with_rules(
        x,
        _all_sum_over(backend.group_of(group, "all_to_all"), stream),
        lambda _, cotangent: all_to_all(cotangent, peer, group, stream),
        lambda x: all_to_all(x, peer, group, stream),
        moves_batch=True,
    )


def gather(x: Any, dst: int, group: _core.Group, stream: Any) -> Any:
    """All ranks' x on rank ``dst``, x itself on the others; each rank gets its part of the cotangent of ``dst``."""
    is_root, over = group.rank() == dst, backend.group_of(group, "gather", dst)
    native = backend.calls["all_gather" if is_root else "all_sum"]
    return _with_rules(
        x,
        lambda x: native(x, group=over, stream=stream),
        # What the others scatter is not used, but has the shape
        lambda _, cotangent: scatter(cotangent if is_root else _repeated(cotangent, group), dst, group, stream),
        lambda x: gather(x, dst, group, stream),
        moves_batch=True,
    )


def _repeated(x: Any, group: _core.Group) -> Any:
    import mlx.core as mx

    return mx.concatenate([x] * group.size())


def scatter(x: Any, src: int, group: _core.Group, stream: Any) -> Any:
    """This rank's part of rank ``src``'s x, from which the others are cut off; cotangents are gathered on ``src``."""
    parts_of = _all_sum_over(backend.group_of(group, "scatter", src), stream)

    def cotangent_of(primal: Any, cotangent: Any) -> Any:
        whole = gather(cotangent, src, group, stream)
        return _only_on(src, whole if group.rank() == src else _repeated(whole, group), group)

    return _with_rules(
        x,
        lambda x: _own_part(parts_of(x), group),
        cotangent_of,
        lambda x: scatter(x, src, group, stream),
        moves_batch=True,
    )


def reduce(x: Any, to: tuple[int, str], group: _core.Group, stream: Any) -> Any:
    """The reduction on one rank, x itself on the others; of a sum, all get the cotangent of that rank."""
    dst, op = to
    root = dst * len(_core.REDUCTION_OF) + _core.REDUCTION_OF[op]

    def cotangent_of(primal: Any, cotangent: Any) -> Any:
        if op != "sum":
            raise ValueError(f'[reduce] op="{op}" has no gradient: pass op="sum"')
        return broadcast(cotangent, dst, group, stream)

    return _with_rules(
        x,
        _all_sum_over(backend.group_of(group, "reduce", root), stream),
        cotangent_of,
        lambda x: reduce(x, to, group, stream),
    )
