"""average_gradients of NumPy arrays and what is converted to one, compared with the mean over all ranks in float64."""

from __future__ import annotations

import functools
import time
from collections import Counter, OrderedDict, defaultdict, namedtuple
from typing import Any

import numpy as np
import pytest
from parallel.providers import PROVIDERS, elements
from parallel.reference import NAMES, WITH_MEAN, assert_same, mean, seeded, values
from parallel.refused import SIZE, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import _core

SHAPES = ((), (0,), (5,), (2, 3), (2, 0, 3), (70, 30))
SIZES = {"each": 0, "tiny": 30, "default": 32 * 1024**2}
each_size = pytest.mark.parametrize("all_reduce_size", SIZES.values(), ids=SIZES)


@functools.cache
def expected_of(name: str, shape: tuple[int, ...]) -> np.ndarray:
    return mean([values(name, shape, rank) for rank in range(SIZE)])


@each_size
def test_every_dtype_and_shape_in_one_tree(world: dist.Group, all_reduce_size: int) -> None:
    tree = {name: [values(name, shape, world.rank()).copy() for shape in SHAPES] for name in WITH_MEAN}
    averaged = dist.average_gradients(tree, all_reduce_size=all_reduce_size)
    for name in WITH_MEAN:
        for shape, given, result in zip(SHAPES, tree[name], averaged[name], strict=True):
            assert result is given
            assert_same(result, expected_of(name, shape))


@each_size
@pytest.mark.parametrize("name", ["float32", "float16", "bfloat16", "complex64"])
def test_floats_alone(world: dist.Group, name: str, all_reduce_size: int) -> None:
    """All in C order and writable: the compiled path."""
    tree = [values(name, shape, world.rank()).copy() for shape in SHAPES]
    for shape, result in zip(SHAPES, dist.average_gradients(tree, None, all_reduce_size), strict=True):
        assert_same(result, expected_of(name, shape))


@each_size
@pytest.mark.parametrize("name", ["float64", "float16", "complex128"])
def test_every_provider(world: dist.Group, name: str, all_reduce_size: int) -> None:
    """Writable arrays hold the mean; others are unchanged."""
    provided = {}
    for provider, made in PROVIDERS.items():
        for shape in SHAPES:
            x = made(values(name, shape, world.rank()))
            if x is not None:
                provided[f"{provider} {shape}"] = x
    before = {place: elements(x).copy() for place, x in provided.items()}
    averaged = dist.average_gradients(provided, all_reduce_size=all_reduce_size)
    assert list(averaged) == list(provided)
    for place, x in provided.items():
        shape = elements(x).shape
        if not place.startswith("stride 0"):
            assert_same(np.asarray(elements(averaged[place])), expected_of(name, shape))
        in_place = isinstance(x, np.ndarray) and x.flags.writeable
        assert (averaged[place] is x) == (in_place or (SIZE == 1 and type(x) is np.ndarray))
        if not in_place:
            assert elements(x).tobytes() == before[place].tobytes()


def test_structure(world: dist.Group) -> None:
    x = np.full(3, float(world.rank()))
    tree = {"b": [x, None, (x[:2], {})], "a": {}, "c": (), "d": None}
    assert dist.average_gradients(tree) is tree
    x.setflags(write=False)
    averaged = dist.average_gradients(tree)
    assert (averaged is tree) == (SIZE == 1)
    assert np.array_equal(averaged["b"][0], x)
    assert str(averaged) == str(tree)
    for nothing in ({}, [], None, {"a": [None]}):
        assert dist.average_gradients(nothing) == nothing
    assert_same(dist.average_gradients(np.array([float(world.rank())])), np.array([(SIZE - 1) / 2]))


def test_keys_may_come_in_any_order(world: dist.Group) -> None:
    keys = ["a", "b", "c", "d"]
    mine = keys[world.rank() % 4 :] + keys[: world.rank() % 4]
    tree = {key: np.full(2, float(ord(key) + world.rank())) for key in mine}
    averaged = dist.average_gradients(tree, all_reduce_size=20)
    assert list(averaged) == mine
    for key in keys:
        assert_same(averaged[key], np.full(2, ord(key) + (SIZE - 1) / 2))


def test_one_array_in_several_places(world: dist.Group) -> None:
    """Even if the second reduction already finds the mean there, and if two arrays overlap."""
    for all_reduce_size in SIZES.values():
        x = np.arange(6.0) + world.rank()
        averaged = dist.average_gradients({"a": x, "b": [x, x[1:4]]}, all_reduce_size=all_reduce_size)
        for result in (averaged["a"], averaged["b"][0]):
            assert_same(result, np.arange(6.0) + (SIZE - 1) / 2)


def test_large_arrays_with_small_ones(world: dist.Group) -> None:
    def tree(rank: int) -> list[np.ndarray]:
        random = np.random.default_rng(rank)
        return [random.normal(size=count).astype("f4") for count in (7, 100_003, 9, 65_536, 200_000, 1)]

    mine = tree(world.rank())
    everybodys = [tree(rank) for rank in range(SIZE)]
    for place, result in enumerate(dist.average_gradients(mine)):
        expected = np.mean([np.float64(leaves[place]) for leaves in everybodys], axis=0)
        assert result is mine[place]
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)
        assert dist.all_max(result).tobytes() == dist.all_min(result).tobytes()  # on all ranks


def test_number_of_reductions(world: dist.Group, monkeypatch: pytest.MonkeyPatch) -> None:
    reductions = []
    average = _core.average
    monkeypatch.setattr(
        _core, "average", lambda group, *others: reductions.append(len(others[0])) or average(group, *others)
    )
    tree = [np.ones(10, dtype) for dtype in ("f4", "f2") * 20]
    dist.average_gradients(tree)
    dist.average_gradients(tree, all_reduce_size=100)
    dist.average_gradients(tree, all_reduce_size=0)
    thirds, fifths = [3] * 6 + [2], [5] * 4
    assert sorted(reductions) == (sorted([20, 20, *thirds, *fifths, *[1] * 40]) if SIZE > 1 else [])


def test_groups(world: dist.Group) -> None:
    part = world.split(world.rank() % 2)
    ranks = range(world.rank() % 2, SIZE, 2)
    averaged = dist.average_gradients([np.full(4, float(world.rank()))], group=part)
    assert_same(averaged[0], np.full(4, float(np.mean(ranks))))


class Rows(list):
    """A list that has a name and needs it."""

    def __init__(self, name: str, rows: Any) -> None:
        super().__init__(rows)
        self.name = name


class Pair(tuple):
    """A tuple that takes its parts one by one, and may have a name."""

    def __new__(cls, first: Any, second: Any) -> Pair:
        return super().__new__(cls, (first, second))


Layer = namedtuple("Layer", ["weight", "bias"])


def test_trees_come_back_as_they_went_in(world: dist.Group) -> None:
    """The general path, since numbers are converted: every container anew, of its class, in its order."""
    two: Any = Pair(1.0, 2.0)
    two.name = "two"
    tree = OrderedDict(
        b=defaultdict(list, {"z": 1.0, "a": Layer(2.0, None)}),
        a=Rows("rows", [two, (), time.struct_time([1.0] * 9), Counter(a=1.5)]),
    )
    averaged = dist.average_gradients(tree)
    assert type(averaged) is OrderedDict
    assert list(averaged) == ["b", "a"]
    assert type(averaged["b"]) is defaultdict
    assert averaged["b"].default_factory is list
    assert list(averaged["b"]) == ["z", "a"]
    assert type(averaged["b"]["a"]) is Layer
    assert type(averaged["a"]) is Rows
    assert averaged["a"].name == "rows"
    assert type(averaged["a"][0]) is Pair
    assert averaged["a"][0].name == "two"
    assert type(averaged["a"][2]) is time.struct_time
    assert type(averaged["a"][3]) is Counter
    assert_same(averaged["a"][0][1], np.array(2.0))
    assert averaged == tree
    assert type(tree["a"][0][1]) is float


def test_integers_are_refused() -> None:
    """Also alone, and whatever else is in the tree: their mean is not one of them."""
    run, call = dist.average_gradients, "average_gradients"
    text = "x has dtype {}, which cannot hold a mean: pass floating-point numbers; x is gradients"
    leaves = [(name, values(name, (3,), 0).copy()) for name in NAMES if name not in WITH_MEAN]
    leaves += [("bool", True), ("int64", 3), ("uint8", bytearray(3)), ("int32", np.int32(1))]
    assert_refused(case(call, text.format(name), TypeError, run, [X, x]) for name, x in leaves)


def test_numbers(world: dist.Group) -> None:
    """0-d arrays come back, on one rank too."""
    for number in (1.5, np.float32(1.5), np.array(1.5, np.float16), 1j, memoryview(np.array(1.5))):
        assert_same(dist.average_gradients([number])[0], np.asarray(number))


def test_buckets_that_differ(world: dist.Group) -> None:
    """Nothing is averaged, not even the first array, which has a bucket of its own on all ranks."""
    needs_peers(world)
    group, tree = world.split(0), [np.full(count, world.rank(), "f4") for count in (100, 8, 16, 8)]
    with pytest.raises(dist.MismatchError, match="of tree"):
        dist.average_gradients(tree, group, 64 + min(world.rank(), 1))
    assert set(tree[0]) == {world.rank()}


X, Y = np.ones(3), np.ones(5)
# what rank 0 passes, what the others pass
DIFFERENT: dict[str, tuple[Any, Any]] = {
    "key": ({"a": X}, {"b": X}),
    "order": ([X, Y], [Y, X]),
    "shape": ([np.ones((2, 3))], [np.ones((3, 2))]),
    "count": ([X], [Y]),
    "dtype": ([X, Y], [X, Y.astype("f4")]),
    "complex": ([X, Y], [X, Y.astype("c16")]),
    "level": ([X, [Y]], [[X], Y]),
    "one more": ([X, Y], [X, Y, X]),
    "None": ([X, None, X], [X, X]),
    "no arrays": ({"a": None}, {"a": X}),
    "read-only": ([X, np.broadcast_to(X, (2, 3))], [X, np.ones((3, 2))]),
}


@pytest.mark.parametrize("all_reduce_size", [0, 32 * 1024**2], ids=["each", "default"])
@pytest.mark.parametrize("difference", DIFFERENT)
def test_trees_that_differ(world: dist.Group, difference: str, all_reduce_size: int) -> None:
    """Even if the buckets match, arrays that do not belong together are not summed."""
    needs_peers(world)
    group = world.split(0)
    tree = DIFFERENT[difference][min(world.rank(), 1)]
    text = r"^\[average_gradients\] the ranks differ in call \d+ on this group(.|\n)* of tree [0-9a-f]{8}"
    with pytest.raises(dist.MismatchError, match=text):
        dist.average_gradients(tree, group, all_reduce_size)
    assert X.tolist() == [1.0] * 3


WIRES = {"bfloat16": 2.0**-8, "float16": 2.0**-11}  # the relative error of one rounding


@pytest.mark.parametrize("is_writable", [True, False], ids=["compiled", "general"])
@pytest.mark.parametrize("wire", WIRES)
def test_wire(world: dist.Group, wire: Any, is_writable: bool) -> None:
    """Each host's float32 sum is rounded, and the total; all else is the same, and so is everything in one host."""

    def tree(rank: int) -> list[np.ndarray]:
        leaves = [values(name, (70, 30), rank).copy() for name in ("float64", "float16")]
        leaves += [seeded(rank, count).normal(size=count).astype("f4") for count in (3, 40_000, 150_001)]
        for leaf in leaves:
            leaf.setflags(write=is_writable)
        return leaves

    exact, crossed = dist.average_gradients(tree(world.rank())), dist.average_gradients(tree(world.rank()), wire=wire)
    local_size, _ = _core.local_size()
    everybodys = [tree(rank) for rank in range(SIZE)]
    for place, (x, y) in enumerate(zip(exact, crossed, strict=True)):
        assert dist.all_max(y).tobytes() == dist.all_min(y).tobytes()
        if local_size == SIZE or x.dtype != "f4":
            assert_same(y, x)
        else:
            sizes = sum(np.abs(leaves[place]) for leaves in everybodys) / SIZE
            assert (np.abs(y - x) <= 2.01 * WIRES[wire] * sizes + 1e-6).all()


@pytest.mark.parametrize("is_writable", [True, False], ids=["compiled", "general"])
def test_wires_that_differ(world: dist.Group, is_writable: bool) -> None:
    needs_peers(world)
    group, x = world.split(0), np.ones(3, "f4")
    x.setflags(write=is_writable)
    text = (
        r"rank 0: average_gradients float32 \(3,\) of tree [0-9a-f]{8} as float16 between hosts\n"
        r"  rank 1.*: average_gradients float32 \(3,\) of tree [0-9a-f]{8} as bfloat16 between hosts\n"
    )
    with pytest.raises(dist.MismatchError, match=text):
        dist.average_gradients(x, group, wire="bfloat16" if world.rank() else "float16")


def test_other_calls_differ(world: dist.Group) -> None:
    needs_peers(world)
    group = world.split(0)
    with pytest.raises(dist.MismatchError, match=r"rank 0: all_sum float64 \(3,\)\n"):
        dist.all_sum(X, group=group) if world.rank() == 0 else dist.average_gradients(X, group)


def test_how_an_array_comes_makes_no_difference(world: dist.Group) -> None:
    """The compiled path on one rank, the general one on the others."""
    x = values("float32", (4, 3), world.rank()).copy(order="C" if world.rank() == 0 else "F")
    assert_same(np.array(dist.average_gradients([x])[0], order="C"), expected_of("float32", (4, 3)))


def test_refused() -> None:
    run, call = dist.average_gradients, "average_gradients"
    assert_refused(
        [
            case(call, r"str is not an array: .*; x is gradients\['a'\]\[1\]", TypeError, run, {"a": [X, "x"]}),
            case(call, "dtype datetime64.*; x is gradients", TypeError, run, np.zeros(3, "M8[s]")),
            case(call, "keys of a dict cannot be sorted", TypeError, run, {"a": X, 1: X}),
            case(call, "all_reduce_size=None is not a number: pass bytes", TypeError, run, X, all_reduce_size=None),
            case(call, "NumPy arrays have no streams: leave stream out", TypeError, run, X, communication_stream=1),
            case(call, "group=0 is not an mlxdist group", TypeError, run, X, 0),
        ]
    )
