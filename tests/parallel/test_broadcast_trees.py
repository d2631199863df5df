"""broadcast of trees: the same tree with the root's values, small leaves in one message, and ranks that differ."""

from __future__ import annotations

import importlib.util
from collections import OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
from parallel.reference import NAMES, assert_same, dtype_of, values
from parallel.refused import SIZE, X, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import _core, trees

Layer = namedtuple("Layer", ["weight", "bias"])
SHAPES = ((), (0,), (5,), (2, 3), (300, 300))


def state(rank: int) -> dict[str, Any]:
    """Every dtype, small leaves and large ones, arrays that cannot be written to, in containers of every kind."""
    made: dict[str, Any] = {name: [values(name, shape, rank) for shape in SHAPES] for name in NAMES}
    made["layer"] = Layer(values("float32", (3, 4), rank).T, None)
    made["nested"] = OrderedDict(
        b=({"x": values("int64", (7,), rank)[::2]}, []), a=defaultdict(list, {"z": float(rank)})
    )
    return made


def leaves_of(tree: Any) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in trees.flatten("broadcast", tree)[0]]


def test_every_leaf_of_every_root(world: dist.Group) -> None:
    for root in range(SIZE):
        mine = state(world.rank())
        before = [leaf.tobytes() for leaf in leaves_of(mine)]
        result = dist.broadcast(mine, root)
        for got, expected in zip(leaves_of(result), leaves_of(state(root)), strict=True):
            assert_same(got, np.array(expected, order="C"))
        assert [leaf.tobytes() for leaf in leaves_of(mine)] == before
        assert [type(result[key]) for key in mine] == [type(part) for part in mine.values()]
        assert list(result["nested"]) == ["b", "a"]
        assert result["nested"]["a"].default_factory is list
        assert result["layer"].bias is None


def test_out(world: dist.Group) -> None:
    """The tree itself, or another one; leaves are written in place, even several that are one array."""
    for root in range(SIZE):
        mine = {
            "a": np.full(3, world.rank()),
            "b": [np.full((300, 300), float(world.rank())), np.full(2, world.rank())],
        }
        a, (large, small) = mine["a"], mine["b"]
        out = {"b": (np.zeros((300, 300)), np.zeros(2, np.int64)), "a": np.zeros(3, np.int64)}
        assert dist.broadcast(mine, root, out=out) is out
        assert large[0, 0] == small[0] == a[0] == world.rank()
        assert dist.broadcast(mine, root, out=mine) is mine
        for tree in (mine, out):
            assert (tree["a"] == root).all()
            assert all((part == root).all() for part in tree["b"])
        assert (a is mine["a"], large is mine["b"][0]) == (True, True)


def test_in_the_background(world: dist.Group) -> None:
    for root in range(SIZE):
        works = [dist.broadcast(state(world.rank()), root, wait=False), dist.broadcast([], root, wait=False)]
        for got, expected in zip(leaves_of(works[0].wait()), leaves_of(state(root)), strict=True):
            assert_same(got, np.array(expected, order="C"))
        assert works[1].wait() == []


def test_number_of_messages(world: dist.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    """One for all small leaves of any dtype, one for each large one."""
    sent, broadcast_joined = [], _core.broadcast_joined
    monkeypatch.setattr(
        _core, "broadcast_joined", lambda *given: sent.append(len(given[2])) or broadcast_joined(*given)
    )
    dist.broadcast(state(world.rank()), 0)
    large = sum(np.prod(SHAPES[-1]) * dtype_of(name).itemsize >= trees.DIRECT for name in NAMES)
    small = len(leaves_of(state(0))) - large
    assert sorted(sent) == (sorted([small, *[1] * large]) if SIZE > 1 else [])


def test_groups_and_what_comes_out_of_one(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    assert dist.broadcast([np.full(3, world.rank()), 1.5], 0, group=part)[0].tolist() == [world.rank() % 2] * 3
    alone, tree = world.split(world.rank()), {"a": np.ones(3), "b": [None]}
    assert dist.broadcast(tree, 0, group=alone) is tree
    out = {"a": np.zeros(3), "b": [None]}
    assert dist.broadcast(tree, 0, group=alone, out=out) is out
    assert out["a"].tolist() == [1] * 3
    assert_same(dist.broadcast([1.5], 0, group=alone)[0], np.array(1.5))


@pytest.mark.parametrize(
    ("mine", "theirs"),
    [
        ({"a": X}, {"b": X}),
        ({"a": X}, {"a": X, "b": None}),
        ([X], [X, X]),
        ([X], [X.astype("f4"), X.astype("f4")]),
        ([X, X], [np.concatenate([X, X])]),
        ({}, {"a": X}),
        ([X], X),
    ],
)
def test_trees_that_differ(world: dist.Group, mine: Any, theirs: Any) -> None:
    needs_peers(world)
    with pytest.raises(dist.MismatchError, match=r"the ranks differ(.|\n)*: broadcast (.|\n)* of tree [0-9a-f]{8}"):
        dist.broadcast(theirs if world.rank() else mine, 0, group=world.split(0))


def test_refused() -> None:
    run = dist.broadcast
    loop: list[Any] = []
    loop.append(loop)
    assert_refused(
        [
            case("broadcast", r"str is not an array: .*; x is x\['a'\]\[1\]$", TypeError, run, {"a": [X, "w"]}, 0),
            case("broadcast", "keys of a dict cannot be sorted", TypeError, run, {"a": X, 1: X}, 0),
            case("broadcast", "more than 200 levels", ValueError, run, loop, 0),
            case("broadcast", f"src={SIZE} is not in the group", ValueError, run, [X], SIZE),
            case("broadcast", "src='0' is not an int", TypeError, run, [], "0"),
            case("broadcast", "a tree of another structure than x", ValueError, run, [X], 0, out=[X, X]),
            case("broadcast", r"out has shape \(5,\), .*; x is x\[0\]$", ValueError, run, [X], 0, out=[X[:5]]),
            case(
                "broadcast", r"out is read-only: .*; x is x\['w'\]$", ValueError, run, {"w": X}, 0, out={"w": fixed()}
            ),
            case("broadcast", "NumPy arrays have no streams", TypeError, run, [X], 0, stream=1),
        ]
    )


def fixed() -> np.ndarray:
    x = X.copy()
    x.setflags(write=False)
    return x


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_mlx(world: dist.Group) -> None:
    """Lazy, with gradients, beside NumPy's; the digest of the tree is in the call."""
    import mlx.core as mx

    src = SIZE - 1

    def tree(rank: int) -> dict[str, Any]:
        return {
            "w": mx.full((2, 3), float(rank)),
            "b": [mx.arange(4) + rank, mx.full(2, rank + 0.5)],
            "n": np.full(3, rank),
        }

    result, expected = dist.broadcast(tree(world.rank()), src), tree(src)
    assert mx.array_equal(result["w"], expected["w"])
    assert all(mx.array_equal(got, wanted) for got, wanted in zip(result["b"], expected["b"], strict=True))
    assert result["b"][0].dtype == mx.int32
    assert result["n"].tolist() == [src] * 3
    w = [mx.ones(3), mx.ones((2, 2))]
    gradients = mx.grad(lambda w: sum((world.rank() + 1) * part.sum() for part in dist.broadcast(w, src)))(w)
    weight = sum(range(1, SIZE + 1)) if world.rank() == src else 0
    assert [set(part.flatten().tolist()) for part in gradients] == [{weight if SIZE > 1 else 1}] * 2
    assert_refused([case("broadcast", "cannot be written to.*; x is x", TypeError, dist.broadcast, w, 0, out=w)])


@pytest.mark.skipif(importlib.util.find_spec("mlx") is None, reason="MLX is not installed")
def test_trees_of_mlx_that_differ(world: dist.Group) -> None:
    import mlx.core as mx

    needs_peers(world)
    if tuple(int(part) for part in mx.__version__.split(".")[:3]) < (0, 32, 2):
        pytest.skip("this MLX ends the process on an error in evaluation")
    result = dist.broadcast({"a" if world.rank() else "b": mx.ones(3)}, 0, group=world.split(0))
    with pytest.raises(RuntimeError, match=r"the ranks differ(.|\n)*of tree [0-9a-f]{8}"):
        mx.eval(result)
