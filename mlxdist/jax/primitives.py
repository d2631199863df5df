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


def run(call: str, x: Any, peer: Any, group: _core.Group, stream: Any, out: Any = None) -> Any:
    """The operation ``call`` on ``x``, when the program runs."""
    x = eager.as_array(call, x)
    eager.synchronize(call, x, stream)
    if out is not None:
        eager.writable(call, out)
    ready = _core.prepare(call, group, peer, x)
    if group.size() == 1:
        return x.reshape(ready.shape)
    return bind(x, call=call, group=group, peer=ready.peer)


def bind(x: Any, *, call: str, group: _core.Group, peer: Any = 0, digest: int = 0, wire: int = 0) -> Any:
    """The primitive, with all its parameters."""
    return operation.bind(x, call=call, group=group, peer=peer, digest=digest, wire=wire)


def average(xs: Sequence[Any], group: _core.Group, stream: Any, digest: int, wire: int) -> list[Any]:
    """The means of several arrays of one dtype over all ranks, by one sum; ranks raise if digests or wires differ."""
    flat = xs[0] if len(xs) == 1 else jnp.concatenate([x.reshape(-1) for x in xs])
    mean = bind(flat, call="average_gradients", group=group, digest=digest, wire=wire)
    if len(xs) == 1:
        return [mean]
    *ends, _ = itertools.accumulate(x.size for x in xs)
    return [part.reshape(x.shape) for part, x in zip(jnp.split(mean, ends), xs, strict=True)]


def _prepared(call: str, x: Any, group: _core.Group, peer: Any, digest: int, wire: int) -> _core.Call:
    return _core.prepare(call, group, peer, x, digest=digest, wire=wire)


@operation.def_effectful_abstract_eval
def _abstract(x: Any, *, call: str, group: _core.Group, peer: Any, digest: int, wire: int) -> Any:
    return core.ShapedArray(_prepared(call, x, group, peer, digest, wire).shape, x.dtype), EFFECTS


operation.def_impl(functools.partial(xla.apply_primitive, operation))


# The cotangent of x from that of the result, by MLX's rules, for operations that are linear in x.
def _summed_on_root(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    total = bind(ct, call="all_sum", group=group)
    return total if group.rank() == peer else jnp.zeros_like(total)


def _own_part(ct: Any, x: Any, group: _core.Group, peer: int) -> Any:
    length = x.shape[0] if x.shape else 1
    return ct[group.rank() * length : (group.rank() + 1) * length].reshape(x.shape)


TRANSPOSED: dict[str, Callable[[Any, Any, _core.Group, Any], Any]] = {
    "all_sum": lambda ct, x, group, peer: ct,
    "average_gradients": lambda ct, x, group, peer: ct / group.size(),
    "all_gather": _own_part,
    "sum_scatter": lambda ct, x, group, peer: bind(ct, call="all_gather", group=group),
    "broadcast": _summed_on_root,
    "sendrecv": lambda ct, x, group, peer: bind(ct, call="sendrecv", group=group, peer=peer[::-1]),
}
UNCHANGED = ("all_max", "all_min")  # not linear: MLX passes the cotangent on as it is
INDEPENDENT = ("recv_like",)  # of x, but for its shape


def _jvp(primals: Any, tangents: Any, **params: Any) -> tuple[Any, Any]:
    """What cannot be differentiated is refused before anything is communicated."""
    (x,), (tangent,), call = primals, tangents, params["call"]
    if type(tangent) is ad.Zero or call in INDEPENDENT:
        result = operation.bind(x, **params)
        return result, ad.Zero(jax.typeof(result).to_tangent_aval())
    if call in UNCHANGED:
        passed_on = cotangent.bind(tangent, call=call)
        return operation.bind(x, **params), passed_on
    if call not in TRANSPOSED:
        raise TypeError(f"[{call}] JAX cannot differentiate it: pass jax.lax.stop_gradient(x), or use sendrecv")
    return operation.bind(x, **params), operation.bind(tangent, **params)


def _transpose(ct: Any, x: Any, *, call: str, group: _core.Group, peer: Any, **_: Any) -> list[Any]:
    return [ct if type(ct) is ad.Zero else TRANSPOSED[call](ct, x.aval, group, peer)]


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
ALONG_AXIS_0 = ("all_gather", "sum_scatter")


def _batched(args: Any, axes: Any, **params: Any) -> tuple[Any, int]:
    (x,), (axis,) = args, axes
    if params["call"] not in ALONG_AXIS_0:
        return operation.bind(x, **params), axis
    x = jnp.moveaxis(x, axis, -1)
    result = operation.bind(x.reshape(1, -1) if x.ndim == 1 else x, **params)
    return result, result.ndim - 1


batching.primitive_batchers[operation] = _batched


def _row_major(aval: Any) -> tuple[int, ...]:
    return tuple(reversed(range(len(getattr(aval, "shape", ())))))


READS_NOTHING, WRITES_NOTHING = ("recv_like",), ("send",)


def _lowered(ctx: Any, x: Any, *, call: str, group: _core.Group, peer: Any, digest: int, wire: int) -> list[Any]:
    (aval,) = ctx.avals_in
    ctx.module_context.add_keepalive(group)
    packed = _core.packed(_prepared(call, aval, group, peer, digest, wire))
    reads, writes = call not in READS_NOTHING, call not in WRITES_NOTHING
    with_tokens = ctx.replace(
        avals_in=[aval] * reads + [core.abstract_token],
        avals_out=[*ctx.avals_out] * writes + [core.abstract_token],
    )
    lower = jax.ffi.ffi_lowering(TARGET, has_side_effect=True)
    *results, token = lower(with_tokens, *[x] * reads, ctx.tokens_in.get(ORDER), call=np.frombuffer(packed, np.uint8))
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
        with contextlib.suppress(Exception):
            jax.effects_barrier()
        dispatch.runtime_tokens.clear()


_core.settle_by(settle)
atexit.register(settle)  # before JAX's own, which would raise the error of one that failed
