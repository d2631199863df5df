"""Calls in the background, groups, meshes and training with torch.distributed on mlxdist."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from parallel.frameworks.beside_gloo import (
    c10d,
    numbers,
    rank,
    same,
    size,
    strided,
    torch,
)

import mlxdist as dist

# Importing DTensor takes seconds.
on_one_mpi = pytest.mark.skipif(dist.info().family == "mpich", reason="one MPI will do: its calls are tested on both")

pytestmark = pytest.mark.usefixtures("groups")


def test_works() -> None:
    x = torch.ones(4)
    work = c10d.all_reduce(x, async_op=True)
    assert work.wait() is True
    assert work.is_completed()
    assert work.is_success()
    assert work.exception() is None
    same(x, torch.full((4,), float(size)))
    assert work.result()[0] is x
    assert c10d.all_reduce(x, async_op=True).get_future().wait()[0] is x
    with c10d._coalescing_manager(async_ops=True) as coalesced:
        c10d.all_reduce(x)
    coalesced.wait()
    works = [
        c10d.broadcast(x, 0, async_op=True),
        c10d.barrier(async_op=True),
        c10d.all_gather_into_tensor(torch.zeros(4 * size), x, async_op=True),
    ]
    for work in reversed(works):
        work.wait()


def test_async_in_any_order_of_waits() -> None:
    """Calls in the background, in other memory or in the same, and strided results that are copied back."""
    given = [strided(numbers((1000,), seed=seed)) for seed in range(6)]
    works = [c10d.all_reduce(x, c10d.ReduceOp.AVG, async_op=True) for x in given]
    works += [c10d.all_reduce(given[0].t(), async_op=True)]
    for work in reversed(works):
        work.wait()
    for seed, x in enumerate(given):
        expected = numbers((1000,), seed=seed)
        c10d.all_reduce(expected, c10d.ReduceOp.AVG)
        assert torch.equal(x, expected * size if seed == 0 else expected)


def test_a_work_that_is_dropped_ends_all_the_same() -> None:
    x = strided(numbers((1000,)))
    c10d.all_reduce(x, async_op=True)
    expected = numbers((1000,))
    c10d.all_reduce(expected)
    for _ in range(1000):
        if torch.equal(x, expected):
            break
        c10d.all_reduce(torch.zeros(1))  # any other call finds that it has ended
    assert torch.equal(x, expected)


def test_groups(gloo: Any) -> None:
    """Of some ranks, which only these make; and of each single rank."""
    for members in ([0], list(range(size)), list(range(size - 1)) or [0], list(range(size))[::-1][:2]):
        ours, gloos = c10d.new_group(members), c10d.new_group(members, backend="gloo")
        if rank not in members:
            continue
        x, expected = numbers((7,)), numbers((7,))
        c10d.all_reduce(x, group=ours)
        c10d.all_reduce(expected, group=gloos)
        same(x, expected)
        root = members[-1]  # a rank of the world
        c10d.broadcast(x, root, group=ours)
        into = [torch.zeros(7) for _ in members]
        c10d.all_gather(into, numbers((7,)), group=ours)
        assert c10d.get_rank(ours) == sorted(members).index(rank)
        c10d.destroy_process_group(ours)
    alone, _ = c10d.new_subgroups(1)
    x = numbers((3,))
    c10d.all_reduce(x, group=alone)
    same(x, numbers((3,)))


@on_one_mpi
def test_mesh_and_dtensor() -> None:
    """A mesh of two dimensions where the ranks allow it; sharded matrices give the whole product."""
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    shape = (2, size // 2) if size % 2 == 0 else (size, 1)
    mesh = init_device_mesh("cpu", shape, mesh_dim_names=("data", "model"))
    left, right = torch.arange(48.0).reshape(6, 8), torch.arange(40.0).reshape(8, 5) % 7
    placed = distribute_tensor(left, mesh, [Shard(0), Shard(1)]) @ distribute_tensor(
        right, mesh, [Replicate(), Shard(0)]
    )
    same(placed.full_tensor(), left @ right)
    moved = distribute_tensor(left, mesh, [Shard(0), Replicate()]).redistribute(mesh, [Shard(1), Replicate()])
    same(moved.full_tensor(), left)
    total = torch.ones(3)
    c10d.all_reduce(total, group=mesh.get_group("model"))
    same(total, torch.full((3,), float(shape[1])))


def model() -> Any:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 16), torch.nn.Tanh(), torch.nn.Linear(16, 3))


def trained(wrapped: Any, x: Any, y: Any, step: Callable[[], None] = lambda: None) -> list[Any]:
    """The losses of a few steps."""
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = (wrapped(x) - y).square().mean()
        loss.backward()
        step()
        optimizer.step()
        losses.append(loss.detach())
    return losses


@on_one_mpi
def test_ddp_and_fsdp_learn_what_one_process_does(groups: dict[str, Any], tmp_path: Any) -> None:
    import torch.distributed.checkpoint as checkpoint
    from torch.distributed.device_mesh import DeviceMesh
    from torch.distributed.fsdp import fully_shard
    from torch.nn.parallel import DistributedDataParallel
    from torch.utils.data import DistributedSampler

    whole = torch.randn(12 * size, 6, generator=torch.Generator().manual_seed(1))
    mine = list(DistributedSampler(range(len(whole)), shuffle=False))
    targets = whole[:, :3].cumsum(1)
    expected = torch.stack(trained(model(), whole, targets))

    def everyones(losses: list[Any]) -> Any:
        mean = torch.stack(losses)
        c10d.all_reduce(mean, c10d.ReduceOp.AVG)
        return mean

    for group in groups.values():
        ddp = DistributedDataParallel(model(), process_group=group)
        torch.testing.assert_close(everyones(trained(ddp, whole[mine], targets[mine])), expected)
        sharded = model()
        mesh = DeviceMesh.from_group(group, "cpu", mesh_dim_names=("data",))
        for part in (sharded[0], sharded[2], sharded):
            fully_shard(part, mesh=mesh)
        torch.testing.assert_close(everyones(trained(sharded, whole[mine], targets[mine])), expected)
    folder = [str(tmp_path)]
    c10d.broadcast_object_list(folder, 0)
    checkpoint.save({"model": sharded.state_dict()}, checkpoint_id=folder[0])
    again = model()
    for part in (again[0], again[2], again):
        fully_shard(part, mesh=mesh)
    checkpoint.load({"model": again.state_dict()}, checkpoint_id=folder[0])
    same([p.full_tensor() for p in again.parameters()], [p.full_tensor() for p in sharded.parameters()])


def test_functional_collectives() -> None:
    """What DTensor and compiled programs call, from C++."""
    import torch.distributed._functional_collectives as functional

    group = c10d.group.WORLD
    x = numbers((size * 2, 3))
    expected = x.clone()
    c10d.all_reduce(expected)
    same(functional.all_reduce(x, "sum", group) + 0, expected)
    same(functional.all_reduce(x, "avg", group) + 0, expected / size)
    part = torch.zeros(2, 3)
    c10d.reduce_scatter_tensor(part, x)
    same(functional.reduce_scatter_tensor(x, "sum", 0, group) + 0, part)
    whole = torch.zeros(size * 2, 3)
    c10d.all_gather_into_tensor(whole, part)
    same(functional.all_gather_tensor(part, 0, group) + 0, whole)
    exchanged = torch.zeros_like(x)
    c10d.all_to_all_single(exchanged, x)
    same(functional.all_to_all_single(x, None, None, group) + 0, exchanged)
    sent = x.clone()
    c10d.broadcast(sent, 0)
    same(functional.broadcast(x, 0, group) + 0, sent)
