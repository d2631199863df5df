"""Which devices of a compiled JAX program communicate with each other, read from its text in all notations."""

from __future__ import annotations

import pytest

from mlxdist import errors
from mlxdist.jax import cliques

LINE = "  ROOT %psum.1 = f32[4,2]{1,0} all-reduce(%x), channel_id=1, replica_groups=GROUPS, use_global_device_ids=true"
ROWS, COLUMNS, EVERY = [(0, 1), (2, 3)], [(0, 2), (1, 3)], [(0, 1, 2, 3)]


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("{{0,1},{2,3}}", ROWS),
        ("{{0},{1},{2},{3}}", [(0,), (1,), (2,), (3,)]),
        ("{{2,3,1,0}}", [(2, 3, 1, 0)]),
        ("{}", EVERY),
        ("[2,2]<=[4]", ROWS),
        ("[2,2]<=[2,2]T(1,0)", COLUMNS),
        ("[1,4]<=[2,2]T(1,0)", [(0, 2, 1, 3)]),
        ("mesh['x'=2,'y'=2] {'y'}", ROWS),
        ("mesh['x'=2,'y'=2] {'x'}", COLUMNS),
        ("mesh['x'=2,'y'=2] {'x','y'}", EVERY),
        ("mesh['x'=2,'y'=2] {'y','x'}", [(0, 2, 1, 3)]),
        ("mesh['axis_0'=4,'axis_1'=1] {'axis_0'}", EVERY),
        ("mesh['x'=4] {'x':(1)2}", COLUMNS),
        ("mesh['x'=4] {'x':(2)2}", ROWS),
        ("mesh['x'=8] {'x':(1)2,'x':(4)2}", [(0, 1, 4, 5), (2, 3, 6, 7)]),
        ("mesh['x'=2,'y'=2], device_ids=(0,2,1,3) {'y'}", COLUMNS),
        ("mesh['x'=2,'y'=2], device_ids=([2,2]T(1,0)) {'y'}", COLUMNS),
    ],
)
def test_groups(written: str, meant: list[tuple[int, ...]]) -> None:
    assert list(cliques.cliques_of(LINE.replace("GROUPS", written), 4)) == meant


def test_each_once_in_the_order_of_the_text() -> None:
    text = "\n".join(LINE.replace("GROUPS", groups) for groups in ("{{0,2},{1,3}}", "{{0,1},{2,3}}", "[2,2]<=[4]"))
    assert list(cliques.cliques_of(text, 4)) == COLUMNS + ROWS


def test_a_permutation_is_among_all_devices() -> None:
    line = "%p = f32[2]{0} collective-permute(%x), channel_id=1, source_target_pairs={{0,2},{1,3}}"
    assert list(cliques.cliques_of(line, 4)) == EVERY
    assert list(cliques.cliques_of("%a = f32[2]{0} add(%x, %y)", 4)) == []


def test_another_notation_is_an_error() -> None:
    with pytest.raises(errors.Error, match=r"cannot read which processes communicate in ROOT .* report it"):
        list(cliques.cliques_of(LINE.replace("GROUPS", "tree(0,1)"), 4))
