"""Other libraries that do the same, each in the same process where it is installed and can be."""

from __future__ import annotations

import importlib
import json
import os
import socket
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist.cli.bench.backends import Backend, Entry, Skipped, timed
from mlxdist.cli.bench.cases import Case


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise Skipped(f"{error}".partition("\n")[0]) from None


def mpi4py(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """mpi4py with the libmpi that mlxdist has opened; init() has told it which."""
    MPI = _imported("mpi4py.MPI")
    if not MPI.Get_library_version().startswith(dist.info().version):
        raise Skipped("it has opened another libmpi")
    world = MPI.COMM_WORLD
    source, into = x, out
    if case.dtype.itemsize == 2:
        if case.is_sum:
            raise Skipped(f"MPI has no {case.dtype.name}")
        source, into = x.view(np.uint8), out.view(np.uint8)
    given = MPI.IN_PLACE if case.in_place else source
    calls = {
        "all_sum": lambda: world.Allreduce(given, into),
        "all_gather": lambda: world.Allgather(source, into),
        "sum_scatter": lambda: world.Reduce_scatter_block(source, into),
        "broadcast": lambda: world.Bcast(into, 0),
    }
    return timed(x, out, calls[case.operation])


def _one_host(what: str) -> None:
    if not dist.info().shared_memory.startswith(str(dist.init().size())):
        raise Skipped(f"{what} is only set up for the ranks of one host")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@cache
def _gloo() -> Any:
    """torch.distributed, started over the loopback device."""
    group = dist.init()
    torch = _imported("torch.distributed")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if os.uname().sysname == "Darwin" else "lo")
    port = int(dist.broadcast(np.int64(_free_port()), 0))
    store = torch.TCPStore("127.0.0.1", port, group.size(), group.rank() == 0, wait_for_workers=False)
    torch.init_process_group("gloo", store=store, rank=group.rank(), world_size=group.size())
    return torch


def gloo(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """PyTorch's gloo; its sums are in place, so one out of place copies before, as a program must."""
    _one_host("gloo")
    torch, tensors = _gloo(), importlib.import_module("torch")
    dtype = getattr(tensors, case.dtype.name)
    given, into = (tensors.from_numpy(array.view(np.uint8)).view(dtype) for array in (x, out))
    # the names since PyTorch 2.13, and those before
    gather = getattr(torch, "all_gather_single", None) or torch.all_gather_into_tensor
    scatter = getattr(torch, "reduce_scatter_single", None) or torch.reduce_scatter_tensor
    calls = {
        "all_sum": lambda: torch.all_reduce(into if case.in_place else into.copy_(given)),
        "all_gather": lambda: gather(into, given),
        "sum_scatter": lambda: scatter(into, given),
        "broadcast": lambda: torch.broadcast(into, 0),
    }
    return timed(x, out, calls[case.operation])


@cache
def _mlx_ring() -> Any:
    """A group of MLX's ring backend over the loopback device."""
    mx, group = _imported("mlx.core"), dist.init()
    ports = dist.all_gather(np.array([_free_port()]))
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"127.0.0.1:{port}"] for port in ports]))
        os.environ |= {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(group.rank())}
        return mx.distributed.init(strict=True, backend="ring")


def _mlx(case: Case, x: np.ndarray, function: Callable[[Any], Any]) -> Entry:
    """A lazy call and its evaluation. What is sent is not written anew: MLX's arrays cannot be written to."""
    if case.in_place and case.operation != "broadcast":
        raise Skipped("MLX has nothing in place")
    mx = _imported("mlx.core")
    dtype, is_short = getattr(mx, case.dtype.name), case.dtype.itemsize == 2
    bits = x.view(np.uint16) if is_short else x
    made: list[Any] = [None]

    def array() -> Any:
        given = mx.array(bits).view(dtype)
        mx.eval(given)
        return given

    def run(given: Any) -> None:
        made[0] = function(given)
        mx.eval(made[0])

    def result() -> np.ndarray:
        return np.array(made[0].view(mx.uint16) if is_short else made[0]).view(case.dtype)

    given = array()
    return Entry(x, lambda: run(array()), result, timed(x, x, lambda: run(given)).spent_s)


def mlx_ours(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """mlxdist on an mx.array."""
    if case.operation == "broadcast":
        return _mlx(case, x, lambda given: dist.broadcast(given, 0))
    return _mlx(case, x, getattr(dist, case.operation))


def mlx_ring(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """MLX's ring backend."""
    _one_host("MLX's ring")
    if case.operation in ("broadcast", "sum_scatter"):
        raise Skipped(f"MLX's ring has no {case.operation}")
    mx, group = _imported("mlx.core"), _mlx_ring()
    function = getattr(mx.distributed, case.operation)
    return _mlx(case, x, lambda given: function(given, group=group, stream=mx.cpu))


def mlx_mpi(case: Case, x: np.ndarray, out: np.ndarray) -> Entry:
    """MLX's MPI backend, which calls MPI_Init whoever has called it before."""
    raise Skipped("it starts MPI itself, so it cannot run in a process where mlxdist has")


ALWAYS: dict[str, Backend] = {"mpi4py": mpi4py}
# By option: they import much, and open connections.
CHOSEN: dict[str, dict[str, Backend]] = {
    "gloo": {"torch gloo": gloo},
    "mlx": {"mlxdist, mx.array": mlx_ours, "MLX ring": mlx_ring, "MLX MPI": mlx_mpi},
}
