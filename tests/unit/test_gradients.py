"""Trees, buckets, and what ranks compare of them, without communication."""

from __future__ import annotations

import itertools
from collections import namedtuple
from typing import Any

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st
from parallel.reference import NAMES, dtype_of

import mlxdist as dist
from mlxdist import _core, trees


def flatten(tree: Any) -> tuple[list[Any], bytes]:
    return trees.flatten("average_gradients", tree)


Layer = namedtuple("Layer", ["weight", "bias"])
KEYS = st.text(max_size=3)
TREES = st.recursive(
    st.none() | st.integers(),
    lambda tree: (
        st.lists(tree, max_size=4)
        | st.dictionaries(KEYS, tree, max_size=4)
        | st.dictionaries(st.integers(), tree, max_size=2)
        | st.tuples(tree, tree)
        | st.builds(Layer, tree, tree)
    ),
)
KINDS_AND_SIZES = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 40)))


def reversed_dicts(tree: Any) -> Any:
    """The same tree with its keys in the opposite order."""
    if isinstance(tree, dict):
        return {key: reversed_dicts(tree[key]) for key in reversed(tree)}
    if isinstance(tree, (list, tuple)):
        parts = map(reversed_dicts, tree)
        return Layer(*parts) if isinstance(tree, Layer) else type(tree)(parts)
    return tree


@hypothesis.given(TREES)
def test_a_tree_is_what_its_leaves_make(tree: Any) -> None:
    leaves, _ = flatten(tree)
    assert None not in leaves
    rebuilt = trees.rebuild(tree, iter(leaves))
    assert repr(rebuilt) == repr(tree)  # including the order of keys, and tuples and lists


@hypothesis.given(TREES)
def test_leaves_stand_where_their_paths_say(tree: Any) -> None:
    leaves, _ = flatten(tree)
    found = [eval(path, {"gradients": tree}) for path in trees.paths(tree, "gradients")]
    assert all(leaf is other for leaf, other in zip(leaves, found, strict=True))


@hypothesis.given(TREES)
def test_the_order_of_insertion_does_not_count(tree: Any) -> None:
    assert flatten(reversed_dicts(tree)) == flatten(tree)


def test_trees_that_differ_are_told_apart() -> None:
    trees = [1, [1], [1, 1], [[1], 1], [1, None], {"a": 1}, {"b": 1}, {"a": 1, "b": None}, {"a": {"b": 1}}, {0: 1}, []]
    assert len({flatten(tree)[1] for tree in trees}) == len(trees)
    assert flatten((1, [1]))[1] == flatten([1, (1,)])[1]


def test_a_tree_within_itself() -> None:
    tree: list[Any] = []
    tree.append(tree)
    with pytest.raises(ValueError, match=r"^\[average_gradients\] the tree has more than 200 levels: pass one that"):
        dist.average_gradients(tree)


@hypothesis.given(KINDS_AND_SIZES, st.integers(-1, 100))
def test_plan(kinds_and_sizes: list[tuple[str, int]], limit: int) -> None:
    kinds, sizes = [kind for kind, _ in kinds_and_sizes], [size for _, size in kinds_and_sizes]
    buckets = trees.plan(kinds, sizes, limit)
    assert sorted(itertools.chain(*buckets)) == list(range(len(kinds)))
    unfilled = []
    for bucket in buckets:
        assert bucket == sorted(bucket)
        assert len({kinds[place] for place in bucket}) == 1
        assert sum(sizes[place] for place in bucket[:-1]) < max(limit, 1)
        if sum(sizes[place] for place in bucket) < limit:
            unfilled.append(kinds[bucket[0]])
    assert len(unfilled) == len(set(unfilled))
    if limit <= 0:
        assert [len(bucket) for bucket in buckets] == [1] * len(kinds)


def test_a_large_array_goes_by_itself() -> None:
    sizes = [8, trees.DIRECT, 8, trees.DIRECT - 1]
    assert trees.plan("aaaa", sizes, 32 * 1024**2) == [[1], [0, 2, 3]]
    assert trees.plan("aaaa", sizes, float("inf")) == [[1], [0, 2, 3]]


def test_plan_of_an_outline() -> None:
    arrays = [np.zeros((2, 3), "f4"), np.zeros(5, "f2"), np.zeros((), "f4"), np.zeros((0, 3), "f2")]
    outline = _core.outline(arrays)
    assert outline is not None
    float32, float16 = map(_core.DTYPES.index, ("float32", "float16"))
    together, apart = trees.planned(outline, 1000), trees.planned(outline, 0)
    assert together[0] == [(trees.HOST, float32, [0, 2]), (trees.HOST, float16, [1, 3])]
    assert [indices for _, _, indices in apart[0]] == [[0], [1], [2], [3]]
    assert together[1] != apart[1]


def test_lazy_arrays_come_first() -> None:
    places = (trees.HOST, 3, trees.MLX, 4, 3, trees.TRACED)
    buckets, _ = trees.planned(b"".join(trees.described(place, 0, (4,)) for place in places), 1000)
    assert [(place, indices) for place, _, indices in buckets] == [
        (trees.MLX, [2]),
        (trees.TRACED, [5]),
        (trees.HOST, [0]),
        (3, [1, 4]),
        (4, [3]),
    ]


@pytest.mark.parametrize("name", NAMES)
def test_outlines_are_alike_in_c_and_in_python(name: str) -> None:
    x = np.zeros((2, 3), dtype_of(name))
    type = _core.type_of(x.dtype)
    divides = name.startswith(("float", "bfloat", "complex"))
    assert _core.divides(type) == divides
    described = trees.described(trees.HOST, type, x.shape) + trees.described(trees.HOST, type, ())
    assert _core.outline([x, x[0, 0, ...]]) == (described if divides else None)
    assert trees.ITEMSIZES[type] == x.itemsize


def test_what_needs_a_closer_look() -> None:
    read_only, x = np.zeros(3), np.zeros((4, 4))
    read_only.setflags(write=False)
    for leaf in (read_only, x.T, x[::2], x.view(np.recarray), x.astype(">f8"), x.astype(object), 1.0, b"", "x"):
        assert _core.outline([x, leaf]) is None
    assert _core.outline([]) == b""


def test_digests() -> None:
    digests = {trees.digest_of(b"a" * i, b"b" * j, k) for i in range(30) for j in range(30) for k in (0, 9)}
    assert len(digests) == 1800
    assert 0 < min(digests) <= max(digests) < 2**31


def test_alone() -> None:
    """The tree itself if it holds arrays; those that could not be communicated are found all the same."""
    read_only = np.zeros(3)
    read_only.setflags(write=False)
    tree = {"a": [np.ones(3), None, np.ones((3, 2)).T], "b": (read_only, np.array(1.0))}
    assert dist.average_gradients(tree) is tree
    for wrong, error, text in (
        ({"a": [np.ones(3), "x"]}, TypeError, r"str is not an array: .*; x is gradients\['a'\]\[1\]$"),
        ([np.ones(3), np.array([None])], TypeError, r"dtype object.*; x is gradients\[1\]$"),
        ("x", TypeError, "x is gradients$"),
        ({"a": 1, 2: 1}, TypeError, r"the keys of a dict cannot be sorted .*: pass keys of one type$"),
    ):
        with pytest.raises(error, match=rf"^\[average_gradients\] .*{text}"):
            dist.average_gradients(wrong)
    for arguments, error, text in (
        ({"group": 1}, TypeError, "group=1 is not an mlxdist group"),
        ({"all_reduce_size": "1"}, TypeError, "all_reduce_size='1' is not a number: pass bytes"),
        ({"communication_stream": 1}, TypeError, "NumPy arrays have no streams"),
        ({"wire": 16}, TypeError, "wire=16 is not a str: pass 'bfloat16', 'float16' or None"),
        ({"wire": np.float16}, TypeError, "wire=<class 'numpy.float16'> is not a str"),
        ({"wire": []}, TypeError, r"wire=\[\] is not a str"),
        ({"wire": "float32"}, ValueError, "wire='float32' is not a 16-bit float: pass 'bfloat16', 'float16' or None"),
    ):
        with pytest.raises(error, match=rf"^\[average_gradients\] {text}|{text}"):
            dist.average_gradients([np.ones(3)], **arguments)
