"""What comes out of each operation, from what goes in: kind, dtype and shape, by the same rule on one rank and several.

Whatever holds the elements, and whether the result is new or written to out=.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import strategies as st
from parallel.reference import NAMES, WITH_MEAN, dtype_of, values
from parallel.ring import around

import mlxdist as dist

Shape = tuple[int, ...]
CALLS: dict[str, Callable[..., Any]] = {
    "all_sum": dist.all_sum,
    "all_max": dist.all_max,
    "all_min": dist.all_min,
    "all_prod": dist.all_prod,
    "all_band": dist.all_band,
    "all_gather": dist.all_gather,
    "sum_scatter": dist.sum_scatter,
    "broadcast": lambda x, **others: dist.broadcast(x, 0, **others),
}
# The last three of the shapes can be scattered over up to four ranks.
SHAPES: tuple[Shape, ...] = ((), (1,), (5,), (0,), (2, 3), (2, 0, 3), (12,), (12, 2), (24, 500))
EXAMPLES = {"name": st.sampled_from(NAMES), "shape": st.sampled_from(SHAPES), "is_alone": st.booleans()}


@dataclass(frozen=True)
class Kind:
    """A framework.

    Attributes:
        views: name -> NumPy array -> an object with its elements, or None if it cannot hold them.
        elements: a result -> its elements as a NumPy array.
        cls: the class of results.
        is_mutable: whether an array can be out=.
        refuses_integers: average_gradients does.
    """

    views: dict[str, Callable[[np.ndarray], Any]]
    elements: Callable[[Any], np.ndarray]
    cls: type
    is_mutable: bool = True
    refuses_integers: bool = True


def shape_after(call: str, shape: Shape, size: int) -> Shape | None:
    """None: a ValueError."""
    if call == "all_gather":
        return (size * shape[0], *shape[1:]) if shape else (size,)
    if call == "sum_scatter":
        return (shape[0] // size, *shape[1:]) if shape and shape[0] % size == 0 else None
    return shape


_alone: list[dist.Group] = []


def group_of(world: dist.Group, is_alone: bool) -> dist.Group:
    if not _alone:
        _alone.append(world.split(world.rank()))
    return _alone[0] if is_alone else world


def check(world: dist.Group, kind: Kind, name: str, shape: Shape, is_alone: bool) -> None:
    """Every operation on every view of one array."""
    group = group_of(world, is_alone)
    for view in kind.views.values():
        x = view(values(name, shape, world.rank()))
        if x is None:
            continue
        for call, run in CALLS.items():
            if call == "all_band" and name in WITH_MEAN:
                continue
            after = shape_after(call, shape, group.size())
            if after is None:
                with pytest.raises(ValueError, match=rf"^\[{call}\] x has shape .* pad or split x"):
                    run(x, group=group)
                continue
            assert_comes_out(kind, run(x, group=group), name, after)
            if kind.is_mutable:
                out = kind.views["contiguous"](np.zeros(after, dtype_of(name)))
                assert run(x, group=group, out=out) is out
                assert_comes_out(kind, out, name, after)
        if group.size() > 1:
            got = around(
                group,
                lambda dst, x=x: kind.elements(dist.send(x, dst, group=group)),  # MLX is lazy
                lambda src, x=x: kind.elements(dist.recv_like(x, src, group=group)),
            )
            assert (got.dtype, got.shape) == (dtype_of(name), shape)
        if name in WITH_MEAN:
            assert_comes_out(kind, dist.average_gradients([x], group)[0], name, shape)
        elif kind.refuses_integers:
            with pytest.raises(
                TypeError, match=rf"^\[average_gradients\] x has dtype {name}, which cannot hold a mean"
            ):
                dist.average_gradients([x], group)


def assert_comes_out(kind: Kind, result: Any, name: str, shape: Shape) -> None:
    assert isinstance(result, kind.cls)
    elements = kind.elements(result)
    assert (elements.dtype, elements.shape, elements.ndim) == (dtype_of(name), shape, len(shape))
