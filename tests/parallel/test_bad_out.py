"""Values of out= that cannot hold the result."""

from __future__ import annotations

import numpy as np
from parallel.refused import COLLECTIVES, OTHER, RANK, SIZE, WORLD, Case, X, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist


def read_only() -> np.ndarray:
    x = X.copy()
    x.setflags(write=False)
    return x


def test_memory() -> None:
    x, y, columns = np.zeros((2, 3)), np.zeros(2, np.uint8), np.zeros((2, 3), order="F")
    assert_refused(
        [
            case("all_sum", "out is read-only: pass", ValueError, dist.all_sum, X, out=read_only()),
            case("all_sum", "out is read-only: pass", ValueError, dist.all_sum, y, out=b"ab"),
            case("broadcast", "out is read-only: pass", ValueError, dist.broadcast, X, SIZE - 1, out=read_only()),
            case("all_sum", "out is not contiguous: pass", ValueError, dist.all_sum, X, out=np.zeros(12)[::2]),
            case("all_max", "out is not contiguous: pass", ValueError, dist.all_max, X, out=np.zeros(6)[::-1]),
            case("all_min", "out is not contiguous: pass", ValueError, dist.all_min, x, out=columns),
        ]
    )


def test_shapes() -> None:
    rows = np.zeros(2 * SIZE)
    gathered = rf"out has shape \(6, 2\), .* out must have shape \({6 * SIZE},\)"
    scattered = r"out has shape \(3,\), .* out must have shape \(2,\)"
    shorter = r"out has shape \(5,\), x has shape \(6,\): out must have shape \(6,\)"
    column = r"out has shape \(6, 1\), x has .*: out must have shape \(6,\)"
    number = r"out has shape \(1,\), x has shape \(\): out must have shape \(\)"
    assert_refused(
        [
            case("all_sum", shorter, ValueError, dist.all_sum, X, out=np.zeros(5)),
            case("all_min", column, ValueError, dist.all_min, X, out=np.zeros((6, 1))),
            case("all_sum", number, ValueError, dist.all_sum, 1.0, out=np.zeros(1)),
            case("all_gather", gathered, ValueError, dist.all_gather, X, out=np.zeros((6, 2))),
            case("sum_scatter", scattered, ValueError, dist.sum_scatter, rows, out=np.zeros(3)),
        ]
    )


def test_dtypes() -> None:
    text = "out has dtype {}, x has dtype float64: out must have dtype float64"
    assert_refused(
        [
            case("all_sum", text.format("float32"), ValueError, dist.all_sum, X, out=np.zeros(6, np.float32)),
            case("all_max", text.format("int64"), ValueError, dist.all_max, X, out=np.zeros(6, np.int64)),
            case("all_min", text.format(">f8"), ValueError, dist.all_min, X, out=np.zeros(6, ">f8")),
            case("all_sum", text.format("uint8"), ValueError, dist.all_sum, X, out=bytearray(6)),
        ]
    )


def test_kinds() -> None:
    """A number cannot be written to, and a list is not an array."""
    outs = ([0.0] * 6, 1.0, np.float64(1), "abcdef", (), object(), 3)
    assert_refused(
        [case("all_sum", f"out is {type(out).__name__}, .*: pass", TypeError, dist.all_sum, X, out=out) for out in outs]
    )


def overlapping(call: str, count: int) -> Case:
    """x, and an out of ``count`` elements that begins one element later."""
    held = np.zeros(1 + 2 * SIZE * SIZE)
    shared = {"all_gather": "this rank's part of out as x", "sum_scatter": "this rank's part of x as out"}
    text = f"out overlaps x in part: pass {shared.get(call, 'x itself')} or separate memory"
    return case(call, text, ValueError, COLLECTIVES[call], held[: 2 * SIZE], out=held[1 : 1 + count])


def test_overlaps() -> None:
    assert_refused(
        [
            *(overlapping(call, 2 * SIZE) for call in ("all_sum", "all_max", "all_min", "broadcast")),
            overlapping("all_gather", 2 * SIZE * SIZE),
            overlapping("sum_scatter", 2),
        ]
    )


def test_in_place_where_the_shape_changes() -> None:
    """Only this rank's own part will do, with its elements in the same order."""
    needs_peers(WORLD)
    x, held, square = np.zeros(2 * SIZE), np.zeros(6 * SIZE), np.zeros((SIZE, SIZE))
    text = "out overlaps x in part: pass"
    own, other = RANK, (RANK + 1) % SIZE
    cases = [
        case("sum_scatter", text, ValueError, dist.sum_scatter, x, out=x[2 * other : 2 * other + 2]),
        case("sum_scatter", text, ValueError, dist.sum_scatter, x[::-1], out=x[2 * own : 2 * own + 2]),
        case("sum_scatter", text, ValueError, dist.sum_scatter, square.T, out=square[own : own + 1]),
        case("all_gather", text, ValueError, dist.all_gather, held[6 * other : 6 * other + 6], out=held),
        case("all_gather", text, ValueError, dist.all_gather, held[6 * own : 6 * own + 6][::-1], out=held),
        case("all_sum", text, ValueError, dist.all_sum, held[:6:-1][:4], out=held[-4:]),
        case("all_sum", text, ValueError, dist.all_sum, square.T, out=square),
    ]
    assert_refused(refused for refused in cases for _ in range(SIZE))  # on every rank


def test_recv_like() -> None:
    needs_peers(WORLD)
    like = dist.recv_like
    shape, dtype = r"out has shape \(3,\), .*: out must have shape", "out has dtype int64, .*: out must have dtype"
    assert_refused(
        [
            case("recv_like", "out is read-only: pass", ValueError, like, X, OTHER, out=read_only()),
            case("recv_like", shape, ValueError, like, X, OTHER, out=np.zeros(3)),
            case("recv_like", dtype, ValueError, like, X, OTHER, out=np.zeros(6, np.int64)),
            case("recv_like", "out is list, .*: pass", TypeError, like, X, OTHER, out=[]),
            case("recv_like", "out is float, .*: pass", TypeError, like, 1.0, OTHER, out=1.0),
        ]
    )
