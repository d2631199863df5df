"""What comes out of each operation on arrays of each framework; see comes_out.py."""

from __future__ import annotations

import pytest
from parallel import comes_out
from parallel.alike import drawn
from parallel.frameworks.kinds import KINDS, kind_of

import mlxdist as dist


@pytest.mark.parametrize("framework", KINDS)
def test_frameworks(world: dist.Group, framework: str) -> None:
    kind = kind_of(framework)
    seen = comes_out.Kind(kind.views, kind.elements, kind.cls, kind.is_mutable)

    @drawn(**comes_out.EXAMPLES)
    def check(world: dist.Group, name: str, shape: comes_out.Shape, is_alone: bool) -> None:
        comes_out.check(world, seen, name, shape, is_alone)

    check(world)
