"""What is special about PyTorch tensors."""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import pytest
from parallel.refused import COLLECTIVES, OTHER, SIZE, WORLD, assert_refused, case
from parallel.ring import needs_peers

import mlxdist as dist
from mlxdist import config
from mlxdist.arrays import gpu
from mlxdist.arrays import torch as ours

torch: Any = pytest.importorskip("torch", reason="PyTorch is not installed")


@pytest.mark.filterwarnings("ignore:ComplexHalf support is experimental")
def test_inputs() -> None:
    vmapped = torch.vmap(dist.all_sum)
    detach, memory = r"x requires grad, .*: pass x.detach\(\)", "without memory: pass a plain tensor"
    assert_refused(
        [
            *(
                case(call, detach, TypeError, run, torch.ones(3, requires_grad=True))
                for call, run in COLLECTIVES.items()
            ),
            case("all_sum", detach, TypeError, dist.all_sum, torch.nn.Parameter(torch.ones(3))),
            case("all_sum", r"layout torch.sparse_coo: pass x.to_dense\(\)", TypeError, dist.all_sum, sparse()),
            case("all_sum", "dtype complex32, .*: pass one of", TypeError, dist.all_sum, half_complex()),
            case(
                "all_sum", "dtype float8_e5m2, .*: pass", TypeError, dist.all_sum, torch.ones(3).to(torch.float8_e5m2)
            ),
            case("all_sum", memory, TypeError, dist.all_sum, torch.ones(3, device="meta")),
            case("all_sum", memory, TypeError, vmapped, torch.ones(3, 2)),
            case("all_sum", "tensors on the CPU have no streams", TypeError, dist.all_sum, torch.ones(3), stream=0),
        ]
    )


def sparse() -> Any:
    return torch.eye(3).to_sparse()


def half_complex() -> Any:
    return torch.empty(3, dtype=torch.complex32)


def test_outputs() -> None:
    x, c = torch.zeros(6), torch.zeros(3, dtype=torch.complex64)
    held = torch.zeros(7)
    run, mixed = dist.all_sum, "both must be of the same framework"
    assert_refused(
        [
            case(
                "all_sum",
                f"out is numpy.ndarray, x is torch.Tensor: {mixed}",
                TypeError,
                run,
                x,
                out=np.zeros(6, np.float32),
            ),
            case(
                "all_sum",
                f"out is torch.Tensor, x is numpy.ndarray: {mixed}",
                TypeError,
                run,
                np.zeros(6, np.float32),
                out=x,
            ),
            case("all_sum", f"out is builtins.list, .*: {mixed}", TypeError, run, x, out=[0.0] * 6),
            case(
                "all_sum", "out requires grad, .*: pass out.detach", TypeError, run, x, out=x.clone().requires_grad_()
            ),
            case("all_sum", "out is not contiguous: pass", ValueError, run, x, out=torch.zeros(12)[::2]),
            case("all_sum", "out is not contiguous: pass", ValueError, run, x, out=torch.zeros(1).expand(6)),
            case("all_sum", "out is a lazy conjugate", ValueError, run, c, out=c.conj()),
            case("all_sum", r"shape \(5,\), x has shape \(6,\): out must have", ValueError, run, x, out=torch.zeros(5)),
            case("all_sum", "dtype torch.int32, x has .*: out must have", ValueError, run, x, out=x.to(torch.int32)),
            case("all_sum", "out overlaps x in part: pass", ValueError, run, held[:6], out=held[1:]),
            case("all_sum", "out overlaps x in part: pass", ValueError, run, held[::2], out=held[:4]),
        ]
    )
    assert_beside(held)


def test_in_place(world: dist.Group) -> None:
    """Views of one storage, as in PyTorch's fully_shard."""
    size, rank = world.size(), world.rank()
    for count in (5, 100_000):
        whole = torch.full((size * count,), -1.0)
        own = whole.chunk(size)[rank]
        own.fill_(rank)
        assert dist.all_gather(own, out=whole) is whole
        assert torch.equal(whole, torch.arange(size, dtype=torch.float32).repeat_interleave(count))
        rows = whole.view(size, count)
        assert dist.sum_scatter(rows.view(-1), out=rows[rank]).tolist() == [float(size * rank)] * count
        assert rows[:, 0].tolist() == [float(r * (size if r == rank else 1)) for r in range(size)]


def assert_beside(held: Any) -> None:
    """Parts of one tensor that do not overlap are allowed."""
    out = held[3:6]
    assert dist.all_sum(held[:3], out=out) is out


def test_what_cannot_be_received() -> None:
    needs_peers(WORLD)
    assert_refused(
        [
            case("recv", "larger than memory can be: pass", ValueError, dist.recv, shape, torch.float32, OTHER)
            for shape in (2**62, 2**64, (2**40, 2**40))
        ]
        + [case("recv", "dtype qint8, .*: pass one of", TypeError, dist.recv, 3, torch.qint8, OTHER)]
    )


def test_autograd_is_told_of_writing() -> None:
    """A value that backward() needs was overwritten: torch raises its own error, not a wrong gradient."""
    saved = torch.ones(3)
    loss = (torch.ones(3, requires_grad=True) * saved).sum()
    dist.all_sum(saved, out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_subclasses_give_plain_tensors() -> None:
    parameter = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    if SIZE > 1:
        assert type(dist.all_sum(parameter)) is torch.Tensor
    assert dist.all_sum(parameter, out=parameter) is parameter
    assert parameter.tolist() == [SIZE] * 3


def test_results_begin_on_a_cache_line() -> None:
    assert dist.all_gather(torch.ones(5)).data_ptr() % 64 == 0 or SIZE == 1


class OnGPU(torch.Tensor):
    """A tensor that claims to be on a GPU, though it is in host memory."""

    device = property(lambda self: torch.device("cuda:0"))

    def cpu(self) -> Any:
        return self.as_subclass(torch.Tensor).clone()


@pytest.mark.parametrize("aware", ["0", "1"], ids=["staged", "aware"])
def test_on_a_gpu(monkeypatch: pytest.MonkeyPatch, aware: str) -> None:
    """The tensor's own memory after synchronizing its stream, or a copy through host memory."""
    waited = []
    stream = types.SimpleNamespace(synchronize=lambda: waited.append(True))
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setenv(config.CUDA_AWARE.name, aware)
    gpu.is_read_by_mpi.cache_clear()
    x = torch.ones(3).as_subclass(OnGPU)
    buffer = ours.as_buffer(x)
    assert buffer.on_device == (aware == "1")
    assert (buffer.owner is x) == bool(waited) == (aware == "1")
    out = torch.zeros(3).as_subclass(OnGPU)
    assert dist.all_sum(x, out=out) is out
    assert out.tolist() == [SIZE] * 3
    assert dist.broadcast(out, SIZE - 1, out=x, stream=stream) is x
    assert x.tolist() == [SIZE] * 3
    assert waited
    text = "is not a stream: pass one of x's framework"
    assert_refused([case("all_sum", text, TypeError, dist.all_sum, x, stream=0)])
    mixed = r"out is on cpu, x on cuda:0: both must be on the same device"
    assert_refused([case("all_sum", mixed, TypeError, dist.all_sum, x, out=torch.zeros(3))])
    gpu.is_read_by_mpi.cache_clear()
