"""What torch.distributed calls: its names and options, for the collectives and messages of one group.

The names that newer releases of torch give to some methods (2.13) are those without an underscore.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import torch
from torch import Tensor, distributed

from mlxdist import _core, world
from mlxdist.torch import collectives
from mlxdist.torch.schedule import Schedule
from mlxdist.torch.work import Coalesced, Work

UNSET = distributed.AllreduceOptions().timeout


def only(operation: str, given: Sequence[Any]) -> Any:
    """The one tensor, or list of tensors, of this process."""
    if len(given) != 1:
        raise ValueError(f"[{operation}] {len(given)} tensors were passed for one process: pass one")
    return given[0]


def is_waited_for() -> bool:
    """Whether a message is that of torch's own send() or recv(), which call isend() or irecv() and wait.

    It is then carried out on this thread, in a fraction of the time.
    """
    return sys._getframe(3).f_code in _WAITING


_WAITING = {inspect.unwrap(call).__code__ for call in (distributed.send, distributed.recv)}


class ProcessGroup(distributed.ProcessGroup):
    """A group of mlxdist with the methods that torch.distributed, DDP, FSDP and DTensor call."""

    def __init__(self, group: world.Group, timeout: timedelta, name: str) -> None:
        super().__init__(group.rank(), group.size())
        self._group, self._rank, self._size = group, group.rank(), group.size()
        self._name, self._desc = name, ""
        self._exchanges: world.Group | None = None
        self._coalesced: list[Work] | None = None  # those within a coalescing manager
        self.set_timeout(timeout)

    @property
    def group(self) -> world.Group:
        """The same ranks for mlxdist's own operations."""
        return self._group

    def name(self) -> str:
        return "mlxdist"

    getBackendName = name

    def getGroupName(self) -> str:
        return self._name

    def setGroupName(self, name: str) -> None:
        self._name = name

    def getGroupDesc(self) -> str:
        return self._desc

    def setGroupDesc(self, desc: str) -> None:
        self._desc = desc

    @property
    def _device_types(self) -> list[torch.device]:
        """None until the group is registered: torch 2.15 would record its calls, which it cannot for this class."""
        return [torch.device("cpu")] if self in distributed.distributed_c10d._world.pg_map else []

    def _get_backend(self, device: torch.device) -> ProcessGroup:
        if torch.device(device).type != "cpu":
            raise RuntimeError(f"[torch] mlxdist communicates tensors on the CPU, not on {device}: pass x.cpu()")
        return self

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout_s = timeout.total_seconds()
        for group in filter(None, (self._group, self._exchanges)):
            _core.set_timeout(group, self._timeout_s)

    _set_default_timeout = set_timeout

    def shutdown(self) -> None:
        """Nothing: the group is released with the last reference to it."""

    abort = shutdown

    def _issue(self, schedule: Schedule, options: Any = None) -> Work:
        """At once, or in the background with async_op=True."""
        limit = UNSET if options is None else options.timeout
        if limit != UNSET:
            _core.set_timeout(self._group, limit.total_seconds())
        try:
            is_async = options is not None and options.asyncOp
            work = schedule.start(self._group) if is_async else schedule.run(self._group)
        finally:
            if limit != UNSET:
                _core.set_timeout(self._group, self._timeout_s)
        return self._issued(work)

    def _issued(self, work: Work) -> Work:
        if self._coalesced is not None:
            self._coalesced.append(work)
        return work

    # Collectives

    def allreduce(self, given: list[Tensor], opts: Any = None) -> Work:
        opts, schedule = opts or distributed.AllreduceOptions(), Schedule("all_reduce", given)
        collectives.all_reduce(schedule, only("all_reduce", given), opts)
        return self._issue(schedule, opts)

    def allreduce_coalesced(self, given: list[Tensor], opts: Any = None) -> Work:
        opts, schedule = opts or distributed.AllreduceCoalescedOptions(), Schedule("all_reduce_coalesced", given)
        for x in given:
            collectives.all_reduce(schedule, x, opts)
        return self._issue(schedule, opts)

    def broadcast(self, given: list[Tensor], opts: Any) -> Work:
        schedule = Schedule("broadcast", given)
        collectives.broadcast(schedule, only("broadcast", given), opts.rootRank)
        return self._issue(schedule, opts)

    def reduce(self, given: list[Tensor], opts: Any) -> Work:
        schedule = Schedule("reduce", given)
        collectives.reduce(schedule, only("reduce", given), opts, self._rank)
        return self._issue(schedule, opts)

    def allgather(self, outputs: list[list[Tensor]], given: list[Tensor], opts: Any = None) -> Work:
        of_ranks, schedule = only("all_gather", outputs), Schedule("all_gather", outputs)
        collectives.all_gather_list(schedule, of_ranks, only("all_gather", given), self._rank, self._size)
        return self._issue(schedule, opts)

    def allgather_coalesced(self, outputs: list[list[Tensor]], given: list[Tensor], opts: Any = None) -> Work:
        schedule = Schedule("all_gather_coalesced", outputs)
        for place, x in enumerate(given):
            of_ranks = [of_rank[place] for of_rank in outputs]
            collectives.all_gather_list(schedule, of_ranks, x, self._rank, self._size)
        return self._issue(schedule, opts)

    def all_gather_single(self, output: Tensor, given: Tensor, opts: Any = None) -> Work:
        return self.all_gather_single_coalesced([output], [given], opts)

    def all_gather_single_coalesced(self, outputs: list[Tensor], given: list[Tensor], opts: Any = None) -> Work:
        schedule = Schedule("all_gather_into_tensor", outputs)
        for output, x in zip(outputs, given, strict=True):
            collectives.all_gather(schedule, output, x, self._size)
        return self._issue(schedule, opts)

    def reduce_scatter(self, outputs: list[Tensor], given: list[list[Tensor]], opts: Any = None) -> Work:
        opts, schedule = opts or distributed.ReduceScatterOptions(), Schedule("reduce_scatter", outputs)
        parts = only("reduce_scatter", given)
        collectives.check_list("reduce_scatter", "the list of inputs", parts, self._size)
        whole, output = collectives.flattened(schedule, parts), only("reduce_scatter", outputs)
        collectives.reduce_scatter(schedule, output, whole, opts, self._size)
        return self._issue(schedule, opts)

    def reduce_scatter_single(self, output: Tensor, given: Tensor, opts: Any = None) -> Work:
        return self.reduce_scatter_single_coalesced([output], [given], opts)

    def reduce_scatter_single_coalesced(self, outputs: list[Tensor], given: list[Tensor], opts: Any = None) -> Work:
        opts, schedule = opts or distributed.ReduceScatterOptions(), Schedule("reduce_scatter_tensor", outputs)
        for output, x in zip(outputs, given, strict=True):
            collectives.reduce_scatter(schedule, output, x, opts, self._size)
        return self._issue(schedule, opts)

    def gather(self, outputs: list[list[Tensor]], given: list[Tensor], opts: Any) -> Work:
        root = opts.rootRank
        of_ranks, schedule = only("gather", outputs) if root == self._rank else [], Schedule("gather", outputs)
        collectives.gather(schedule, of_ranks, only("gather", given), root, self._rank, self._size)
        return self._issue(schedule, opts)

    def scatter(self, outputs: list[Tensor], given: list[list[Tensor]], opts: Any) -> Work:
        root = opts.rootRank
        parts, schedule = only("scatter", given) if root == self._rank else [], Schedule("scatter", outputs)
        collectives.scatter(schedule, only("scatter", outputs), parts, root, self._rank, self._size)
        return self._issue(schedule, opts)

    def _for_exchanges(self) -> world.Group:
        """The same ranks again: a message of the program's that is pending must not get a part of an exchange."""
        if self._exchanges is None:
            self._exchanges = self._group.split(0)
            _core.set_timeout(self._exchanges, self._timeout_s)
        return self._exchanges

    def alltoall(self, outputs: list[Tensor], given: list[Tensor], opts: Any = None) -> Work:
        schedule = Schedule("all_to_all", outputs)
        collectives.all_to_all(schedule, outputs, given, self._rank, self._size)
        schedule.apart = self._for_exchanges()
        return self._issue(schedule, opts)

    def all_to_all_single(
        self, output: Tensor, given: Tensor, output_splits: list[int], input_splits: list[int], opts: Any = None
    ) -> Work:
        name = "all_to_all_single"
        schedule = Schedule(name, [output])
        if output_splits or input_splits:
            targets = collectives.divided(name, schedule.writes(output), output_splits, self._size)
            sources = collectives.divided(name, schedule.reads(given), input_splits, self._size)
            collectives.all_to_all(schedule, targets, sources, self._rank, self._size)
            schedule.apart = self._for_exchanges()
        else:
            collectives.all_to_all_single(schedule, output, given, self._size)
        return self._issue(schedule, opts)

    def barrier(self, opts: Any = None) -> Work:
        schedule = Schedule("barrier", [])
        schedule.barrier()
        return self._issue(schedule, opts)

    def monitored_barrier(self, timeout: timedelta | None = None, wait_all_ranks: bool = False) -> None:
        """A barrier: the TimeoutError of each names all ranks that are missing."""
        options = distributed.BarrierOptions()
        options.timeout = UNSET if timeout is None else timeout
        self.barrier(options)

    _allgather_base = all_gather_single
    allgather_into_tensor_coalesced = all_gather_single_coalesced
    _reduce_scatter_base = reduce_scatter_single
    reduce_scatter_tensor_coalesced = reduce_scatter_single_coalesced
    alltoall_base = all_to_all_single

    def _start_coalescing(self, device: torch.device) -> None:
        self._coalesced = []

    def _end_coalescing(self, device: torch.device) -> Work:
        works, self._coalesced = self._coalesced or [], None
        return Coalesced(works)

    # Messages: those to one rank, and from one rank, in order; those of different ranks do not wait for each other

    def send(self, given: list[Tensor], dst: int, tag: int = 0) -> Work:
        schedule = Schedule("send", given)
        schedule.call("send", dst, schedule.reads(only("send", given)), None)
        return self._issued(schedule.run(self._group) if is_waited_for() else schedule.start(self._group))

    def recv(self, given: list[Tensor], src: int, tag: int = 0) -> Work:
        schedule = Schedule("recv", given)
        elements = schedule.writes(only("recv", given))
        schedule.call("recv_like", src, elements, elements)
        return self._issued(schedule.run(self._group, src) if is_waited_for() else schedule.start(self._group, src))

    def recv_anysource(self, given: list[Tensor], tag: int = 0) -> Work:
        raise ValueError("[recv] mlxdist receives from a rank that is named: pass src=")
