"""The fast path and the general path of an operation are the same to their caller: values, dtypes, shapes and errors.

``__wrapped__`` of a compiled operation is its general path, to which the fast path hands what it does not take.
"""

from __future__ import annotations

import functools
import itertools
import math
import typing
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from parallel.reference import NAMES, dtype_of, values
from parallel.ring import around

import mlxdist as dist

WORLD = dist.init()
SIZE, RANK = WORLD.size(), WORLD.rank()
SHAPES = ((), (0,), (SIZE,), (2 * SIZE, 3), (SIZE + 1,), (2 * SIZE, 2048))
ROOTS: dict[str, tuple[Any, ...]] = {"broadcast": (0, SIZE - 1, -1, SIZE, True, 1.5, None, np.int64(0), 2**70)}
COLLECTIVES = ("all_sum", "all_max", "all_min", "all_gather", "sum_scatter", "broadcast")
MESSAGES = ("send", "recv", "recv_like")


def outs(x: np.ndarray, call: str) -> Iterator[tuple[str, Callable[[np.ndarray], Any]]]:
    """What may be passed as ``out``, made from the x of the call."""
    shape = {
        "all_gather": (SIZE * x.shape[0], *x.shape[1:]) if x.shape else (SIZE,),
        "sum_scatter": (x.shape[0] // SIZE, *x.shape[1:]) if x.shape else (),
    }.get(call, x.shape)
    other = "int8" if x.dtype.name != "int8" else "int16"
    yield "none", lambda x: None
    yield "x itself", lambda x: x
    yield "memory of its own", lambda x: np.zeros(shape, x.dtype)
    yield "another shape", lambda x: np.zeros((*shape, 2), x.dtype)
    yield "another dtype", lambda x: np.zeros(shape, other)
    if call != "sum_scatter" or x.ndim > 1:  # else it is some rank's own part, and only the other ranks are refused
        yield "overlapping", lambda x: x.base[1 : 1 + math.prod(shape)].reshape(shape)
        yield "the first of x", lambda x: x.reshape(-1)[: x.size // SIZE]
    yield "read-only", lambda x: np.broadcast_to(np.zeros((), x.dtype), shape)
    yield "not contiguous", lambda x: np.zeros((*shape, 2), x.dtype)[..., 0]
    yield "a list", lambda x: [0]


def outcome(run: Callable[..., Any], x: np.ndarray, make_out: Callable[[np.ndarray], Any], *peer: Any) -> Any:
    """What a caller sees: an error's class and words, or the result, and whose memory it is in."""
    given = np.resize(x, SIZE * x.size + SIZE + 1)[: x.size].reshape(x.shape)
    out = make_out(given)
    try:
        result = run(given, *peer) if out is None else run(given, *peer, out=out)
    except (TypeError, ValueError) as error:
        return type(error), str(error)
    assert type(result) is np.ndarray
    return result.dtype, result.shape, result.tobytes(), given.tobytes(), result is given, result is out


def both(call: str) -> tuple[Callable[..., Any], Callable[..., Any]]:
    fast = getattr(dist, call)
    assert fast.__wrapped__ is not fast
    return fast, fast.__wrapped__


@pytest.mark.parametrize("call", COLLECTIVES)
def test_collectives(call: str) -> None:
    fast, general = both(call)
    seen, words = set(), ""
    names = itertools.cycle(NAMES)
    for shape in SHAPES:
        for peer in ROOTS.get(call, ((),)):
            x = values(next(names), shape, RANK)
            for name, make_out in outs(x, call):
                peers = () if isinstance(peer, tuple) else (peer,)
                first, second = (outcome(run, x, make_out, *peers) for run in (fast, general))
                assert first == second, (call, shape, name, peer)
                seen.add(first[0] if isinstance(first[0], type) else "result")
                words += first[1] if isinstance(first[1], str) else ""
    assert seen == {"result", TypeError, ValueError}
    for reason in ("overlaps x in part", "out must have shape", "out must have dtype", "read-only", "not contiguous"):
        assert reason in words


@pytest.mark.parametrize("name", NAMES)
def test_dtypes(name: str) -> None:
    x = values(name, (2 * SIZE, 3), RANK)
    for call in COLLECTIVES:
        peers = (SIZE - 1,) if call == "broadcast" else ()
        first, second = (outcome(run, x, lambda x: None, *peers) for run in both(call))
        assert first == second
        assert first[0] == dtype_of(name)


def test_messages() -> None:
    x = np.arange(6.0) + RANK
    for peer in (-1, SIZE, RANK, True, "0", None):
        for call in ("send", "recv_like"):
            first, second = (outcome(run, x, lambda x: None, peer) for run in both(call))
            assert first == second
            assert first[0] in (TypeError, ValueError)
        for shape, dtype in ((6, float), ((2, 3), np.dtype("f8")), ((-1,), "f4"), (3.5, "f4"), (2, object), (2, ">f8")):
            first, second = (outcome(run, x, lambda x: None, peer) for run in receivers(shape, dtype))
            assert first == second
            assert first[0] in (TypeError, ValueError)
    if SIZE == 1:
        return
    for way in range(2):
        send, like = both("send")[way], both("recv_like")[way]
        for receive in (like, receivers((6,), np.float64)[way]):
            got = around(WORLD, lambda peer, send=send: send(x, peer), lambda peer, receive=receive: receive(x, peer))
            assert np.array_equal(got, np.arange(6.0) + (RANK - 1) % SIZE)


def receivers(shape: Any, dtype: Any) -> list[Callable[..., Any]]:
    return [lambda x, src, receive=receive: receive(shape, dtype, src) for receive in both("recv")]


def test_groups() -> None:
    """Of one rank, of some, and what is not a group."""
    x = values("float32", (2 * SIZE, 3), RANK)
    for group in (WORLD, WORLD.split(RANK), WORLD.split(RANK % 2), None, 0, "world", dist.Group):
        barriers = [refusal(run, group) for run in both("barrier")]
        assert barriers[0] == barriers[1]
        for call in COLLECTIVES:
            peers = (0,) if call == "broadcast" else ()
            runs = [functools.partial(run, group=group) for run in both(call)]
            first, second = (outcome(run, x, lambda x: None, *peers) for run in runs)
            assert first == second


def refusal(run: Callable[..., Any], group: Any) -> Any:
    try:
        return run(group=group)
    except TypeError as error:
        return str(error)


def test_python_refuses_alike() -> None:
    """Errors about wrong arguments name the operation itself."""
    for call in (*COLLECTIVES, *MESSAGES):
        operation = getattr(dist, call)
        for arguments, named in (((), {}), ((1, 2, 3, 4, 5), {}), ((np.ones(1), 0, 0), {"op": "max"})):
            with pytest.raises(TypeError, match=rf"^{call}\(\) "):
                operation(*arguments, **named)
    with pytest.raises(TypeError, match=r"^all_sum\(\) .*'op'"):
        dist.all_sum(np.ones(1), op="max")


def test_type_hints_are_complete() -> None:
    for call in (*COLLECTIVES, *MESSAGES, "barrier"):
        operation = getattr(dist, call)
        code = operation.__wrapped__.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        assert typing.get_type_hints(operation).keys() == {*names, "return"}
