"""Wrong inputs, peers, colors, groups, streams, shapes and dtypes; wrong outputs are in test_bad_out.py."""

from __future__ import annotations

import array
import itertools
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from parallel.refused import COLLECTIVES, MESSAGES, OTHER, POSSIBLE, RANK, SIZE, WORLD, X, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist

BAD_INPUTS: tuple[tuple[Any, type[Exception], str], ...] = (
    (np.array([1, None]), TypeError, "dtype object, which cannot be communicated: pass one of bool, int8"),
    (np.array(["a"]), TypeError, "dtype <U1, .*: pass one of"),
    (np.array([b"a"]), TypeError, r"dtype \|S1, .*: pass one of"),
    (np.zeros(2, "i4,f4"), TypeError, r"dtype \[.*\], .*: pass one of"),
    (np.zeros(2, "M8[s]"), TypeError, r"dtype datetime64\[s\], .*: pass one of"),
    (np.zeros(2, "m8[s]"), TypeError, r"dtype timedelta64\[s\], .*: pass one of"),
    (np.zeros(2, ml_dtypes.float8_e4m3fn), TypeError, "dtype float8_e4m3fn, .*: pass one of"),
    (np.zeros(2, ">f8"), TypeError, r"dtype >f8, not in this machine's byte order: pass x.astype"),
    (array.array("u", "ab"), TypeError, "dtype <U1, .*: pass one of"),
    (np.str_("a"), TypeError, "dtype <U1, .*: pass one of"),
    (np.ma.masked_array([1.0, 2.0], [False, True]), TypeError, "a masked array would lose its mask: pass x.filled"),
    ([1.0, 2.0], TypeError, "list is not an array: pass an array of NumPy"),
    ((1.0, 2.0), TypeError, "tuple is not an array: pass"),
    ("ab", TypeError, "str is not an array: pass"),
    (None, TypeError, "NoneType is not an array: pass"),
    (2**63, ValueError, "x=9223372036854775808 does not fit into int64: pass"),
    (-(2**63) - 1, ValueError, "x=-9223372036854775809 does not fit into int64: pass"),
)


def test_inputs() -> None:
    """Every wrong input, and every operation with some of them."""
    calls = itertools.cycle(POSSIBLE.items())
    cases = []
    for x, error, text in BAD_INPUTS:
        call, run = next(calls)
        if call == "broadcast" and isinstance(x, (list, tuple)):  # it takes trees
            call, run = next(calls)
        cases.append(case(call, text, error, run, x))
    assert_refused(cases)


def test_peers() -> None:
    needs_peers(WORLD)
    calls: dict[str, tuple[str, Any, tuple[Any, ...]]] = {
        "send": ("dst", dist.send, (X,)),
        "recv": ("src", dist.recv, (6, float)),
        "recv_like": ("src", dist.recv_like, (X,)),
        "broadcast": ("src", dist.broadcast, (X,)),
    }
    cases = []
    for call, (name, run, rest) in calls.items():
        if call != "broadcast":
            cases.append(case(call, f"{name}={RANK} is this rank itself: pass", ValueError, run, *rest, RANK))
        for peer in (SIZE, -1, 2**70):
            text = f"{name}={peer} is not in the group: pass a rank from 0 to {SIZE - 1}"
            cases.append(case(call, text, ValueError, run, *rest, peer))
    for peer, (call, (name, run, rest)) in zip(
        (True, 1.0, "0", None, np.True_, np.float64(0), [0], b"0"), [*calls.items()] * 2, strict=True
    ):
        cases.append(case(call, f"{name}=.* is not an int: pass an int", TypeError, run, *rest, peer))
    assert_refused(cases)


def test_roots_in_a_group_of_one() -> None:
    """A broadcast has a root there too."""
    alone = WORLD.split(RANK)
    assert_refused(
        [
            case("broadcast", "src=1 is not in the group: pass", ValueError, dist.broadcast, X, 1, group=alone),
            case("broadcast", "src=False is not an int: pass", TypeError, dist.broadcast, X, False, group=alone),
        ]
    )


def test_rows_that_do_not_divide() -> None:
    shapes = [(), *([(1,), (SIZE + 1, SIZE), (2 * SIZE - 1,)] if SIZE > 1 else [])]
    text = "axis 0 is not divisible by the group's size .*: pad or split x"
    assert_refused([case("sum_scatter", text, ValueError, dist.sum_scatter, np.zeros(shape)) for shape in shapes])


def test_colors_and_keys() -> None:
    split = WORLD.split
    cases = []
    for color in (-1, 2**31, -(2**31), 2**70):
        text = f"color={color} is out of range: pass a number from 0 to 2147483647"
        cases.append(case("split", text, ValueError, split, color))
    for color in ("0", True, 1.0, None, np.True_, np.float32(0)):
        cases.append(case("split", "color=.* is not an int", TypeError, split, color))
    for key in (2**31, -(2**31) - 1):
        cases.append(case("split", f"key={key} is out of range: pass a number from", ValueError, split, 0, key))
    for key in ("0", True, 1.0, None):
        cases.append(case("split", "key=.* is not an int", TypeError, split, 0, key))
    assert_refused(cases)


def test_groups() -> None:
    foreign = itertools.cycle((0, "world", object(), [WORLD], dist.Group, True))
    text = "is not an mlxdist group: pass what init"
    cases = [case(call, text, TypeError, run, X, group=next(foreign)) for call, run in (COLLECTIVES | MESSAGES).items()]
    cases.append(case("recv", text, TypeError, dist.recv, 6, float, OTHER, group=next(foreign)))
    cases.append(case("barrier", text, TypeError, dist.barrier, group=next(foreign)))
    assert_refused(cases)


def test_a_group_comes_only_from_init_and_split() -> None:
    for arguments in ((), (1, 2), (WORLD,)):
        with pytest.raises(TypeError, match=r"^\[Group\] a group cannot be created directly: call mlxdist.init\(\)"):
            dist.Group(*arguments)


def test_streams() -> None:
    text, out = "NumPy arrays have no streams: leave stream out", X.copy()
    cases = [case(call, text, TypeError, run, X, stream=0) for call, run in POSSIBLE.items()]
    cases.append(case("all_sum", text, TypeError, dist.all_sum, X, out=out, stream="gpu"))
    if SIZE > 1:
        cases.append(case("recv", text, TypeError, dist.recv, 1, float, OTHER, stream=1))
    assert_refused(cases)


def test_shapes_and_dtypes_to_receive() -> None:
    needs_peers(WORLD)
    cases = []
    for shape in (-1, (2, -1)):
        cases.append(case("recv", "negative length: pass", ValueError, dist.recv, shape, float, OTHER))
    for shape in (3.0, "3", None, (1, "2"), (1.5,), {3}):
        text = "shape=.* is not a shape: pass an int or a sequence of ints"
        cases.append(case("recv", text, TypeError, dist.recv, shape, float, OTHER))
    for shape in (2**62, 2**64, (2**40, 2**40)):
        cases.append(case("recv", "shape=.* larger than memory .*: pass", ValueError, dist.recv, shape, float, OTHER))
    for dtype in ("nonsense", 3.5, ",", {"names": ["a"], "formats": []}, 7):
        text = "dtype=.* is not a dtype of NumPy, MLX, PyTorch or JAX: pass one of"
        cases.append(case("recv", text, TypeError, dist.recv, 3, dtype, OTHER))
    for dtype in (object, "U3", "i4,f4", "M8[s]", np.longdouble, list, str):
        cases.append(case("recv", "cannot be communicated: pass one of", TypeError, dist.recv, 3, dtype, OTHER))
    cases.append(case("recv", "byte order: pass", TypeError, dist.recv, 3, ">f8", OTHER))
    assert_refused(cases)


def test_backends() -> None:
    texts = dict.fromkeys(("nonsense", "", "MPI"), "is unknown: use 'any' or 'mpi'")
    texts |= dict.fromkeys(("ring", "nccl", "jaccl"), "is MLX's own: use mx.distributed .*or backend='mpi'")
    assert_refused(
        [case("init", f"backend={name!r} {text}", ValueError, dist.init, backend=name) for name, text in texts.items()]
    )
    assert not dist.is_available("nonsense")
    assert not dist.is_available("ring")
    assert dist.is_available()
