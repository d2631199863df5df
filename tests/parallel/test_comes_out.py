"""What comes out of each operation on NumPy arrays, what is converted to one, and MLX arrays; see comes_out.py."""

from __future__ import annotations

import numpy as np
import pytest
from parallel.alike import drawn
from parallel.comes_out import EXAMPLES, Kind, Shape, check
from parallel.drawn import FOR_MLX
from parallel.providers import PROVIDERS, Subclass

import mlxdist as dist


@drawn(**EXAMPLES)
def test_numpy(world: dist.Group, name: str, shape: Shape, is_alone: bool) -> None:
    check(world, Kind(PROVIDERS, np.asarray, np.ndarray), name, shape, is_alone)


@drawn(**EXAMPLES)
def test_mlx(world: dist.Group, name: str, shape: Shape, is_alone: bool) -> None:
    mx = pytest.importorskip("mlx.core", reason="MLX is not installed")
    if name in FOR_MLX:
        kind = Kind({"contiguous": mx.array}, np.array, mx.array, is_mutable=False, refuses_integers=False)
        check(world, kind, name, shape, is_alone)


def test_a_subclass_of_numpys_arrays(world: dist.Group) -> None:
    """Gives a plain array of the same memory in a group of one too."""
    x = np.ones(3).view(Subclass)
    assert type(dist.all_sum(x)) is np.ndarray
    assert np.may_share_memory(dist.all_sum(x, group=world.split(world.rank())), x)
