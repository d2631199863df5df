"""Operations on JAX arrays inside jit, grad, vmap and control flow: one JAX primitive for all of them.

A compiled program calls ``xla_handler()`` of core/xla/handler.c, where its arrays are, on the CPU. It makes its calls
in the order of the program: JAX passes a token from one to the next (an ordered effect), also through loops and from
one program to the next on a thread. XLA runs what depends on nothing in any order, but keeps that of a token.

Only imported when JAX has been, and something is traced.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax._src import core, dispatch, effects  # seen in 0.8.0 to 0.10.2; the public part of JAX has no ordered effects
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir, xla

from mlxdist import _core
from mlxdist.arrays import jax as eager

TARGET = "mlxdist"  # XLA's name for the handler


class Order(effects.Effect):
    """Operations happen in the order of the program, on whichever groups: as outside of jit."""


class Communication(effects.Effect):
    """Has no order. A program that was compiled ahead of time, ``lower().compile()``, fails at its second call if all
    of its effects have one (JAX 0.10.2)."""


ORDER = Order()
EFFECTS = {ORDER, Communication()}
for allowed in (
    effects.lowerable_effects,
    effects.control_flow_allowed_effects,
    effects.custom_derivatives_allowed_effects,
    effects.remat_allowed_effects,
):
    allowed.add_type(Order)
    allowed.add_type(Communication)
effects.ordered_effects.add_type(Order)

operation = Primitive("mlxdist")
cotangent = Primitive("mlxdist_cotangent")  # of what only has a vjp


def run(call: str, x: Any, peer: Any, group: _core.Group, stream: Any, out: Any, op: str | None) -> Any:
    """The operation ``call`` on ``x``, when the program runs."""
    x = eager.as_array(call, x)
    eager.synchronize(call, x, stream)
    if out is not None:
        eager.writable(call, out)
    ready = _core.prepare(call, group, peer, x, op=op)
    if group.size() == 1:
        return x.reshape(ready.shape)
    return bind(x, call=call, group=group, peer=ready.peer, op=op)


def bind(
    x: Any, *, call: str, group: _core.Group, peer: Any = 0, op: str | None = None, digest: int = 0, wire: int = 0
) -> Any:
    """The primitive, with all its parameters."""
    return operation.bind(x, call=call, group=group, peer=peer, op=op, digest=digest, wire=wire)


def average(xs: Sequence[Any], group: _core.Group, stream: Any, digest: int, wire: int) -> list[Any]:
    """The means of several arrays of one dtype over all ranks, by one sum; ranks raise if digests or wires differ."""
    return _joined(xs, call="average_gradients", group=group, digest=digest, wire=wire)


def broadcast_joined(xs: Sequence[Any], src: int, group: _core.Group, stream: Any, digest: int) -> list[Any]:
    """Rank ``src``'s arrays of one dtype, by one broadcast; ranks raise if digests differ."""
    return _joined(xs, call="broadcast", group=group, peer=src, digest=digest)


def _joined(xs: Sequence[Any], **params: Any) -> list[Any]:
    """The primitive on several arrays as one."""
    result = bind(xs[0] if len(xs) == 1 else jnp.concatenate([x.reshape(-1) for x in xs]), **params)
    if len(xs) == 1:
        return [result]
    *ends, _ = itertools.accumulate(x.size for x in xs)
    return [part.reshape(x.shape) for part, x in zip(jnp.split(result, ends), xs, strict=True)]


def _prepared(x: Any, *, call: str, group: _core.Group, peer: Any, **options: Any) -> _core.Call:
    return _core.prepare(call, group, peer, x, **options)


@operation.def_effectful_abstract_eval
def _abstract(x: Any, **params: Any) -> Any:
    ready = _prepared(x, **params)
    return core.ShapedArray(ready.shape if ready.has_result else x.shape, x.dtype), EFFECTS


operation.def_impl(functools.partial(xla.apply_primitive, operation))


# The cotangent of x from that of the result, by MLX's rules, for operations that are linear in x.
def _summed_on_root(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    total = bind(ct, call="all_sum", group=group)
    return total if group.rank() == peer else jnp.zeros_like(total)


def _own_part(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    length = x.shape[0] if x.shape else 1
    return ct[group.rank() * length : (group.rank() + 1) * length].reshape(x.shape)


def _from_root(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    # Elsewhere it is not used, but has the shape, and is part of a batch if it is on the root
    whole = ct if group.rank() == peer else jnp.concatenate([jnp.atleast_1d(ct)] * group.size())
    return bind(whole, call="scatter", group=group, peer=peer).reshape(x.shape)


def _to_root(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    whole = bind(ct, call="gather", group=group, peer=peer)
    return whole if group.rank() == peer else jnp.zeros(x.shape, ct.dtype)


TRANSPOSED: dict[str, Callable[[Any, Any, _core.Group, Any], Any]] = {
    "all_sum": lambda ct, x, group, peer: ct,
    "average_gradients": lambda ct, x, group, peer: ct / group.size(),
    "all_gather": _own_part,
    "sum_scatter": lambda ct, x, group, peer: bind(ct, call="all_gather", group=group),
    "broadcast": _summed_on_root,
    "sendrecv": lambda ct, x, group, peer: bind(ct, call="sendrecv", group=group, peer=peer[::-1]),
    "all_to_all": lambda ct, x, group, peer: bind(ct, call="all_to_all", group=group),
    "gather": _from_root,
    "scatter": _to_root,
    "reduce": lambda ct, x, group, peer: bind(ct, call="broadcast", group=group, peer=peer),
}
UNCHANGED = ("all_max", "all_min")  # not linear: MLX passes the cotangent on as it is
INDEPENDENT = ("recv_like",)  # of x, but for its shape


def _others_product(x: Any, group: _core.Group) -> Any:
    """The product of the other ranks' x: by no division, since elements may be zero."""
    each = bind(x[None], call="all_gather", group=group)
    wide = each.astype(jnp.float32) if each.dtype.itemsize == 2 else each
    return jnp.delete(wide, group.rank(), axis=0, assume_unique_indices=True).prod(axis=0).astype(x.dtype)


def _jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    """What cannot be differentiated is refused before anything is communicated."""
    (x,), (tangent,), call = primals, tangents, params["call"]
    if type(tangent) is ad.Zero or call in INDEPENDENT:
        result = operation.bind(x, **params)
        return result, ad.Zero(jax.typeof(result).to_tangent_aval())
    if call in UNCHANGED:
        passed_on = cotangent.bind(tangent, call=call)
        return operation.bind(x, **params), passed_on
    if call == "all_prod":
        return operation.bind(x, **params), bind(
            tangent * _others_product(x, params["group"]), call="all_sum", group=params["group"]
        )
    if params["op"] not in (None, "sum"):
        raise ValueError(f'[{call}] op="{params["op"]}" has no gradient: pass op="sum", or jax.lax.stop_gradient(x)')
    if call not in TRANSPOSED:
        raise TypeError(f"[{call}] JAX cannot differentiate it: pass jax.lax.stop_gradient(x), or use sendrecv")
    return operation.bind(x, **params), operation.bind(tangent, **params)


def _transpose(ct: Any, x: Any, *, call: str, group: _core.Group, peer: Any, **_: Any) -> list[Any]:
    return [TRANSPOSED[call](ad.instantiate_zeros(ct), x.aval, group, peer)]  # which other ranks may wait for


ad.primitive_jvps[operation] = _jvp
ad.primitive_transposes[operation] = _transpose


@cotangent.def_abstract_eval
def _same(x: Any, *, call: str) -> Any:
    return x


def _no_tangent(*_: Any, call: str) -> Any:
    raise TypeError(f"[{call}] JAX can differentiate it in reverse only: use grad or vjp, not jvp")


cotangent.def_impl(_no_tangent)
mlir.register_lowering(cotangent, lambda ctx, *args, **params: _no_tangent(**params))
ad.primitive_transposes[cotangent] = lambda ct, x, *, call: [ct]
batching.defvectorized(cotangent)


# Operations that take axis 0 apart or make it longer; the others treat all elements alike.
ALONG_AXIS_0 = ("all_gather", "sum_scatter", "all_to_all", "gather", "scatter")


def _batched(args: Any, axes: Any, **params: Any) -> tuple[Any, int]:
    (x,), (axis,) = args, axes
    if params["call"] not in ALONG_AXIS_0:
        return operation.bind(x, **params), axis
    x = jnp.moveaxis(x, axis, -1)
    result = operation.bind(x[None] if x.ndim == 1 else x, **params)
    if result.shape == (1, *x.shape):  # numbers that another rank gathers
        return x, 0
    return result, result.ndim - 1


batching.primitive_batchers[operation] = _batched


def _lowered(ctx: Any, x: Any, **params: Any) -> list[Any]:
    (aval,) = ctx.avals_in
    ctx.module_context.add_keepalive(params["group"])
    ready = _prepared(aval, **params)
    reads, writes = params["call"] not in INDEPENDENT, ready.has_result
    with_tokens = ctx.replace(
        avals_in=[aval] * reads + [core.abstract_token],
        avals_out=[*ctx.avals_out] * writes + [core.abstract_token],
    )
    lower = jax.ffi.ffi_lowering(TARGET, has_side_effect=True)
    *results, token = lower(
        with_tokens, *[x] * reads, ctx.tokens_in.get(ORDER), call=np.frombuffer(_core.packed(ready), np.uint8)
    )
    ctx.set_tokens_out(mlir.TokenSet({ORDER: token}))
    return results if writes else [x]


def _elsewhere(ctx: Any, *args: Any, call: str, **params: Any) -> Any:
    platforms = ", ".join(ctx.module_context.platforms)
    raise NotImplementedError(
        f"[{call}] inside jit JAX arrays are communicated on the CPU only, and this program is for {platforms}: "
        "call it outside of jit"
    )


mlir.register_lowering(operation, _lowered, platform="cpu")
mlir.register_lowering(operation, _elsewhere)
jax.ffi.register_ffi_target(TARGET, _core.handler(), platform="cpu")


def settle() -> None:
    """Wait for the programs with ordered effects that this thread has started; whoever uses their results gets errors.

    JAX keeps the token of one that failed, so that all later ones would fail for its reason: that is forgotten.
    """
    if dispatch.runtime_tokens.current_tokens:
        tokens = dispatch.runtime_tokens
        for token in (*tokens.current_tokens.values(), *tokens.output_runtime_tokens.values()):
            with contextlib.suppress(Exception):
                token.block_until_ready()
        tokens.clear()


_core.settle_by(settle)
atexit.register(settle)  # before JAX's own, which would raise the error of one that failed
