"""Other libraries that offer the same operations; each runs in the same process, if it is installed."""

from __future__ import annotations

import importlib
import json
import os
import socket
import tempfile
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist.cli.bench import wire
from mlxdist.cli.bench.backends import RAW, Backend, Prepared, Skipped, from_python
from mlxdist.cli.bench.cases import PARTED, ROOTED, Case
from mlxdist.cli.objects import on_any_rank

LIMIT_S = 60  # for the start of a library, and for each of its calls


def _import(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:
        raise Skipped(f"{error}".partition("\n")[0]) from None


def mpi4py(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """mpi4py on the libmpi that mlxdist has opened; init() has set the variable that names it."""
    MPI = _import("mpi4py.MPI")
    if not MPI.Get_library_version().startswith(dist.info().version):
        raise Skipped("it has opened a different libmpi")
    world = MPI.COMM_WORLD
    source, target = x, out
    if case.dtype.itemsize == 2:
        if case.is_sum:
            raise Skipped(f"MPI does not have {case.dtype.name}")
        source, target = x.view(np.uint8), out.view(np.uint8)
    sum_source = MPI.IN_PLACE if case.in_place else source
    calls = {
        "all_sum": lambda: world.Allreduce(sum_source, target),
        "all_gather": lambda: world.Allgather(source, target),
        "sum_scatter": lambda: world.Reduce_scatter_block(source, target),
        "broadcast": lambda: world.Bcast(target, 0),
        "all_to_all": lambda: world.Alltoall(source, target),
        "gather": lambda: world.Gather(source, target if world.rank == 0 else None, 0),
        "scatter": lambda: world.Scatter(source, target, 0),
        "reduce": lambda: world.Reduce(source, target, root=0),
    }
    return from_python(x, out, calls[case.operation])


def _addresses() -> list[str]:
    """The address by which each rank can be reached."""
    network = wire.between_hosts()
    if not network:
        return ["127.0.0.1"] * dist.init().size()
    if network.why:
        raise Skipped(f"no address of another host is known: {network.why}")
    return [network.addresses[host] for host in network.hosts.host_of]


def _interfaces() -> Sequence[str]:
    """The network interfaces that lead to the other ranks, as far as they are known."""
    network = wire.between_hosts()
    if not network:
        return ["lo0" if os.uname().sysname == "Darwin" else "lo"]
    return network.interfaces[network.hosts.host_of[dist.init().rank()]]


def _free_port(address: str) -> int:
    with socket.socket() as probe:
        probe.bind((address, 0))
        return int(probe.getsockname()[1])


@cache
def _outcome(name: str, start: Callable[[Any], Any]) -> tuple[Any, str]:
    result, why = None, ""
    # One after the other, since the start may wait for ever for a rank that could not import it.
    steps: tuple[Callable[[], Any], ...] = (lambda: _import(name), lambda: start(_import(name)))
    for step in steps:
        try:
            result = step()
        except (Skipped, RuntimeError, OSError) as error:
            why = f"{error}".partition("\n")[0] or type(error).__name__
        if on_any_rank(why):
            return None, why or "it cannot be started on another rank"
    return result, ""


def _started(name: str, start: Callable[[Any], Any]) -> Any:
    """What ``start`` returned for the module ``name``, once it did on every rank."""
    result, why = _outcome(name, start)
    if why:
        raise Skipped(why)
    return result


def _gloo(torch: Any) -> Any:
    """torch.distributed, started over the network between the hosts, or over the loopback device."""
    group, addresses, limit = dist.init(), _addresses(), timedelta(seconds=LIMIT_S)
    for name in _interfaces()[:1]:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    port = int(dist.broadcast(np.int64(_free_port(addresses[group.rank()])), 0))
    store = torch.TCPStore(addresses[0], port, group.size(), group.rank() == 0, limit, wait_for_workers=False)
    torch.init_process_group("gloo", store=store, rank=group.rank(), world_size=group.size(), timeout=limit)
    return torch


def gloo(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """PyTorch's gloo. Its sums are in place, so for others the input is copied first, as a program would."""
    torch, tensors = _started("torch.distributed", _gloo), importlib.import_module("torch")
    dtype = getattr(tensors, case.dtype.name)
    source, target = (tensors.from_numpy(array.view(np.uint8)).view(dtype) for array in (x, out))
    # the names since PyTorch 2.13, and the earlier ones
    gather = getattr(torch, "all_gather_single", None) or torch.all_gather_into_tensor
    scatter = getattr(torch, "reduce_scatter_single", None) or torch.reduce_scatter_tensor
    is_root, size = dist.init().rank() == 0, case.size
    gathered = list(target.chunk(size)) if is_root else None
    scattered = list(source.chunk(size)) if is_root else None
    calls = {
        "all_sum": lambda: torch.all_reduce(target if case.in_place else target.copy_(source)),
        "all_gather": lambda: gather(target, source),
        "sum_scatter": lambda: scatter(target, source),
        "broadcast": lambda: torch.broadcast(target, 0),
        "all_to_all": lambda: torch.all_to_all_single(target, source),
        "gather": lambda: torch.gather(source, gathered, 0),
        "scatter": lambda: torch.scatter(target, scattered, 0),
        "reduce": lambda: torch.reduce(target.copy_(source), 0),
    }
    return from_python(x, out, calls[case.operation])


def _mlx_ring(mx: Any) -> Any:
    """A group of MLX's ring backend over the network between the hosts, or over the loopback device."""
    group, addresses = dist.init(), _addresses()
    ports = dist.all_gather(np.array([_free_port(addresses[group.rank()])]))
    with tempfile.TemporaryDirectory() as folder:
        hosts = Path(folder) / "hosts.json"
        hosts.write_text(json.dumps([[f"{address}:{port}"] for address, port in zip(addresses, ports, strict=True)]))
        os.environ |= {"MLX_HOSTFILE": str(hosts), "MLX_RANK": str(group.rank())}
        return mx.distributed.init(strict=True, backend="ring")


def _mlx(case: Case, x: np.ndarray, function: Callable[[Any], Any]) -> Prepared:
    """A lazy call and its evaluation. The input is not rewritten, since MLX's arrays are immutable."""
    if case.in_place and case.operation != "broadcast":
        raise Skipped("MLX has no operation in place")
    mx = _import("mlx.core")
    dtype, is_short = getattr(mx, case.dtype.name), case.dtype.itemsize == 2
    bits = x.view(np.uint16) if is_short else x
    outputs: list[Any] = [None]

    def array() -> Any:
        made = mx.array(bits).view(dtype)
        mx.eval(made)
        return made

    def run(source: Any) -> None:
        outputs[0] = function(source)
        mx.eval(outputs[0])

    def result() -> np.ndarray:
        return np.array(outputs[0].view(mx.uint16) if is_short else outputs[0]).view(case.dtype)

    source = array()
    return Prepared(x, lambda: run(array()), result, from_python(x, x, lambda: run(source)).time_calls)


def mlx_mlxdist(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """mlxdist on an mx.array."""
    function = getattr(dist, case.operation)
    return _mlx(case, x, (lambda array: function(array, 0)) if case.operation in ROOTED else function)


def mlx_ring(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """MLX's ring backend."""
    if case.operation in (*ROOTED, *PARTED):
        raise Skipped(f"MLX's ring does not have {case.operation}")
    group, mx = _started("mlx.core", _mlx_ring), _import("mlx.core")
    function = getattr(mx.distributed, case.operation)
    return _mlx(case, x, lambda array: function(array, group=group, stream=mx.cpu))


def mlx_mpi(case: Case, x: np.ndarray, out: np.ndarray) -> Prepared:
    """MLX's MPI backend, which calls MPI_Init even if it has been called before."""
    raise Skipped("it initializes MPI itself, so it cannot share a process with mlxdist")


DEFAULT: dict[str, Backend] = {"mpi4py": mpi4py}
# By option, since they import a lot and open connections.
OPTIONAL: dict[str, dict[str, Backend]] = {
    "gloo": {"torch gloo": gloo},
    "mlx": {"mlxdist, mx.array": mlx_mlxdist, "MLX ring": mlx_ring, "MLX MPI": mlx_mpi},
}
# Between hosts, where one of each kind is enough.
BETWEEN_HOSTS = ("mlxdist", RAW, "torch gloo", "MLX ring")
