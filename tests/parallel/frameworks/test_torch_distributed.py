"""Every collective and message of torch.distributed on mlxdist gives what gloo gives in the same program."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Any

import pytest
from parallel.frameworks.beside_gloo import (
    as_gloo,
    c10d,
    dense,
    numbers,
    rank,
    same,
    several,
    size,
    strided,
    torch,
)

import mlxdist as dist

DTYPES = ("float32", "bfloat16", "float16", "float64", "int64", "int8", "uint8", "bool", "complex64")
FLOATS = ("float32", "bfloat16", "float16", "float64")
SHAPES = ((6,), (3, 4), (0,), (), (2, 0, 3), (40_000,))
pytestmark = pytest.mark.usefixtures("groups")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("op", ["SUM", "MIN", "MAX", "PRODUCT", "BAND", "BOR"])
def test_all_reduce(gloo: Any, op: str, dtype: str) -> None:
    kind = getattr(torch, dtype)
    if op in ("BAND", "BOR") and (kind.is_floating_point or kind.is_complex):
        pytest.skip("bits of floats are refused: see test_refused")
    if kind.is_complex and op != "SUM":
        pytest.skip("torch itself refuses it")

    def call(group: Any, layout: Callable[[Any], Any]) -> Any:
        given = [layout(numbers(shape, dtype)) for shape in SHAPES]
        for x in given:
            c10d.all_reduce(x, getattr(c10d.ReduceOp, op), group=group)
        return given

    as_gloo(gloo, call, dense, strided)


@pytest.mark.parametrize("dtype", FLOATS)
def test_all_reduce_mean(dtype: str) -> None:
    for shape in SHAPES:
        x, expected = numbers(shape, dtype), numbers(shape, dtype)
        c10d.all_reduce(expected)
        c10d.all_reduce(x, c10d.ReduceOp.AVG)
        assert torch.equal(x, expected / size)


def test_all_reduce_coalesced(gloo: Any) -> None:
    def call(group: Any) -> Any:
        given = [numbers((3,)), numbers((2, 2), seed=1)]
        c10d.all_reduce_coalesced(given, group=group)
        with c10d._coalescing_manager(group):
            for x in given:
                c10d.all_reduce(x, group=group)
        return given

    as_gloo(gloo, call)


@pytest.mark.parametrize("dtype", [*DTYPES, "complex128", "float8_e5m2", "uint16"])
@pytest.mark.parametrize("layout", [dense, strided])
def test_what_is_only_moved(gloo: Any, dtype: str, layout: Callable[[Any], Any]) -> None:
    """Any dtype that torch has; gloo gets float32 instead."""

    def call(group: Any, layout: Callable[[Any], Any], dtype: str) -> list[Any]:
        results = []
        for root in range(size):
            x = layout(numbers((3, 2), dtype, seed=root))
            c10d.broadcast(x, root, group=group)
            results.append(x)
            into = [layout(torch.zeros_like(x)) for _ in range(size)] if rank == root else None
            c10d.gather(layout(numbers((3, 2), dtype)), into, root, group=group)
            results += into or []
            parts = [layout(numbers((2, 2), dtype, seed=part)) for part in range(size)] if rank == root else None
            part = layout(torch.zeros((2, 2)).to(x.dtype))
            c10d.scatter(part, parts, root, group=group)
            results.append(part)
        into = [layout(torch.zeros((3, 2)).to(x.dtype)) for _ in range(size)]
        c10d.all_gather(into, layout(numbers((3, 2), dtype)), group=group)
        return [*results, *into]

    results, expected = call(None, layout, dtype), call(gloo, dense, "float32")
    kind = getattr(torch, dtype)
    same([x.to(torch.complex128) for x in results], [x.to(kind).to(torch.complex128) for x in expected])


@pytest.mark.parametrize("dtype", DTYPES)
def test_into_one_tensor(gloo: Any, dtype: str) -> None:
    def call(group: Any) -> Any:
        x = numbers((3, 2), dtype)
        output = torch.zeros(size * 3, 2).to(x.dtype)
        c10d.all_gather_into_tensor(output, x, group=group)
        return output

    as_gloo(gloo, call)
    x = numbers((3, 2), dtype)
    stacked, flat = torch.zeros(size, 3, 2).to(x.dtype), torch.zeros(size * 3, 2).to(x.dtype)
    c10d.all_gather_into_tensor(stacked, x)  # gloo (2.13) has no such form
    c10d.all_gather_into_tensor(flat, x)
    assert torch.equal(stacked.view(flat.shape), flat)


def test_in_place(gloo: Any) -> None:
    """The input is this rank's part of the output, and the other way round: as FSDP2 does."""

    def call(group: Any) -> Any:
        whole = numbers((size * 4,))
        c10d.all_gather_into_tensor(whole, whole[rank * 4 : rank * 4 + 4], group=group)
        return whole

    as_gloo(gloo, call)
    whole = numbers((size * 4,))
    expected = torch.zeros(4)
    c10d.reduce_scatter_tensor(expected, whole.clone())
    part = whole[rank * 4 : rank * 4 + 4]
    c10d.reduce_scatter_tensor(part, whole)
    assert torch.equal(part, expected)


def test_all_gather_of_unequal_lengths() -> None:
    x = torch.arange(rank + 2.0) + 10 * rank
    into = [torch.zeros(other + 2) for other in range(size)]
    c10d.all_gather(into, x)
    same(into, [torch.arange(other + 2.0) + 10 * other for other in range(size)])


def test_all_gather_coalesced(gloo: Any) -> None:
    def call(group: Any) -> Any:
        given = [numbers((3,)), numbers((2, 2), seed=1)]
        into = [[torch.zeros_like(x) for x in given] for _ in range(size)]
        c10d.all_gather_coalesced(into, given, group=group)
        return into

    as_gloo(gloo, call)


@pytest.mark.parametrize("op", ["SUM", "MIN", "MAX", "PRODUCT"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int64"])
def test_reduce_scatter(op: str, dtype: str) -> None:
    parts = [numbers((3, 2), dtype, seed=part) for part in range(size)]
    expected = torch.stack(parts)
    c10d.all_reduce(expected, getattr(c10d.ReduceOp, op))
    for into in (torch.zeros(3, 2), strided(torch.zeros(3, 2))):
        output = into.to(parts[0].dtype)
        c10d.reduce_scatter(output, parts, getattr(c10d.ReduceOp, op))
        assert torch.equal(output, expected[rank])
        output = into.to(parts[0].dtype)
        c10d.reduce_scatter_tensor(output, torch.stack(parts), getattr(c10d.ReduceOp, op))
        assert torch.equal(output, expected[rank])


def test_reduce_scatter_mean() -> None:
    whole = numbers((size * 3, 2))
    total, mean = torch.zeros(3, 2), torch.zeros(3, 2)
    c10d.reduce_scatter_tensor(total, whole)
    c10d.reduce_scatter_tensor(mean, whole, c10d.ReduceOp.AVG)
    assert torch.equal(mean, total / size)


@pytest.mark.parametrize("op", ["SUM", "MAX"])
def test_reduce(gloo: Any, op: str) -> None:
    def call(group: Any) -> Any:
        results = []
        for root in range(size):
            x = numbers((5,))
            c10d.reduce(x, root, getattr(c10d.ReduceOp, op), group=group)
            results.append(x if rank == root else None)
        return results

    as_gloo(gloo, call)
    x = numbers((5,))
    c10d.reduce(x, 0)
    assert rank == 0 or torch.equal(x, numbers((5,))), "other ranks' tensors are not changed"


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_to_all_single(gloo: Any, dtype: str) -> None:
    def call(group: Any) -> Any:
        x = numbers((2 * size, 3), dtype)
        output = torch.zeros_like(x)
        c10d.all_to_all_single(output, x, group=group)
        lengths = [other + rank for other in range(size)]  # none of rank 0 for itself
        x = numbers((sum(lengths), 2), dtype)
        unequal = torch.zeros_like(x)
        c10d.all_to_all_single(unequal, x, lengths, lengths, group=group)
        return output, unequal

    as_gloo(gloo, call)


def test_all_to_all_single_into_columns() -> None:
    lengths = [other + rank + 1 for other in range(size)]
    x = numbers((sum(lengths), 2))
    expected, columns = torch.zeros_like(x), torch.zeros(2, sum(lengths)).t()
    c10d.all_to_all_single(expected, x, lengths, lengths)
    c10d.all_to_all_single(columns, x, lengths, lengths)
    same(columns.contiguous(), expected)


def test_all_to_all() -> None:
    given = [torch.full((rank + 1, other + 1), 10.0 * rank + other) for other in range(size)]
    outputs = [torch.zeros(other + 1, rank + 1) for other in range(size)]
    c10d.all_to_all(outputs, given)
    same(outputs, [torch.full((other + 1, rank + 1), 10.0 * other + rank) for other in range(size)])


@several
def test_a_message_is_not_a_part_of_an_exchange() -> None:
    """One that is received across an all_to_all, of as many elements."""
    outputs, message = [torch.zeros(2) for _ in range(size)], torch.zeros(2)
    work = c10d.irecv(message, (rank - 1) % size)
    c10d.all_to_all(outputs, [torch.full((2,), 10.0 * rank + other) for other in range(size)])
    c10d.send(torch.full((2,), 77.0), (rank + 1) % size)
    work.wait()
    same(message, torch.full((2,), 77.0))
    same(outputs, [torch.full((2,), 10.0 * other + rank) for other in range(size)])


@several
@pytest.mark.parametrize("count", [1, 1000, 300_000])
@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64"])
def test_messages(gloo: Any, count: int, dtype: str) -> None:
    after, before = (rank + 1) % size, (rank - 1) % size

    def call(group: Any) -> Any:
        x, blocking, batched = numbers((count,), dtype), *(torch.zeros(count).to(getattr(torch, dtype)) for _ in "12")
        sent = c10d.isend(x, after, group=group)
        assert c10d.recv(blocking, before, group=group) == before
        sent.wait()
        ops = [c10d.P2POp(c10d.isend, x, after, group), c10d.P2POp(c10d.irecv, batched, before, group)]
        for work in c10d.batch_isend_irecv(ops):
            work.wait()
        return blocking, batched

    as_gloo(gloo, call)


@several
def test_messages_in_any_order() -> None:
    """Two under way in each direction; those of one direction stay in order."""
    peer = rank ^ 1
    if peer >= size:
        return
    given, into = [numbers((200_000,), seed=i) for i in range(2)], [torch.zeros(200_000) for _ in range(2)]
    works = [c10d.irecv(x, peer) for x in into] if rank < peer else []
    works += [c10d.isend(x, peer) for x in given]
    works += [] if rank < peer else [c10d.irecv(x, peer) for x in into]
    for work in reversed(works):
        work.wait()
        assert work.is_completed()
    for i, x in enumerate(into):
        generator = torch.Generator().manual_seed(1000 * i + peer)
        assert torch.equal(x, torch.randint(0, 4, (200_000,), generator=generator).float())


def test_objects(gloo: Any) -> None:
    def call(group: Any) -> Any:
        everyone: list[Any] = [None] * size
        c10d.all_gather_object(everyone, {"rank": rank, "text": "x" * rank}, group=group)
        shared = [f"from {rank}", rank]
        c10d.broadcast_object_list(shared, 0, group=group)
        gathered: list[Any] | None = [None] * size if rank == 0 else None
        c10d.gather_object((rank, "g"), gathered, 0, group=group)
        part: list[Any] = [None]
        c10d.scatter_object_list(part, list(range(size)) if rank == 0 else None, 0, group=group)
        return everyone, shared, gathered, part

    as_gloo(gloo, call)


@several
def test_object_messages() -> None:
    if rank == 0:
        c10d.send_object_list(["a", {"b": 1}], 1)
    elif rank == 1:
        received: list[Any] = [None, None]
        c10d.recv_object_list(received, 0)
        assert received == ["a", {"b": 1}]


def test_with_a_gradient() -> None:
    """Communication is not a part of the graph, as with every backend."""
    x = torch.ones(3, requires_grad=True)
    c10d.all_reduce(x)
    same(x.detach(), torch.full((3,), float(size)))
    y = torch.ones(3, 2, requires_grad=True)
    c10d.broadcast(y.t(), 0)


def test_refused() -> None:
    """Before any communication: all ranks can go on."""
    x = torch.ones(4)
    with pytest.raises(ValueError, match="PREMUL_SUM is not among mlxdist's: use SUM, AVG"):
        c10d.all_reduce(x, c10d._make_nccl_premul_sum(2.0))
    with pytest.raises(TypeError, match="cannot hold a mean"):
        c10d.all_reduce(torch.ones(4, dtype=torch.int64), c10d.ReduceOp.AVG)
    with pytest.raises(TypeError, match="cannot be added"):
        c10d.all_reduce(torch.ones(4).to(torch.float8_e5m2))
    with pytest.raises(TypeError, match="layout"):
        c10d.all_reduce(torch.eye(3).to_sparse())
    with pytest.raises(TypeError, match="is on meta"):
        c10d.broadcast(torch.ones(4, device="meta"), 0)
    with pytest.raises(ValueError, match="output"):
        c10d.all_gather_into_tensor(torch.ones(4 * size + 1), x)
    with pytest.raises(ValueError, match="pass one for each"):
        c10d.all_gather([x] * (size + 1), x)
    with pytest.raises(ValueError, match="add up"):
        c10d.all_to_all_single(x, x, [3] * size, [3] * size)
    with pytest.raises(ValueError, match="src="):
        c10d.recv(x)
    c10d.all_reduce(x)
    same(x, torch.full((4,), float(size)))


def test_group() -> None:
    world = c10d.group.WORLD
    assert c10d.get_backend() == "mlxdist"
    assert (c10d.get_rank(), c10d.get_world_size()) == (rank, size)
    assert world.group_name
    assert world.group_desc == "default_pg"
    assert c10d.is_backend_available("mlxdist")
    total = dist.all_sum(torch.ones(2), group=world.group)
    same(total, torch.full((2,), float(size)))
    world.monitored_barrier(datetime.timedelta(seconds=60))
