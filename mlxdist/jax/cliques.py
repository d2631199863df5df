"""A group for each clique of devices that a program of JAX communicates in, before XLA asks for it.

XLA makes a communicator when a clique is first used, on a thread of its own, by a split of MPI_COMM_WORLD with the
clique's first device as color: which other processes split at the same time, it leaves to the program. They may be
fewer than all, or in another clique: of the mesh [2, 3, 1, 0], rows {2, 3} and {1, 0}, ranks 2 and 3 may have their
row's communicator from an earlier mesh, and split for something else when 1 and 0 split for theirs. So the cliques are
read from the compiled program before it runs for the first time, which all of its processes do, and for each new one a
small program is run that uses it alone.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import threading
import weakref
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from mlxdist import _core, errors, world

# The three notations of XLA for groups of devices, as numbers from 0 (jaxlib 0.10.2):
# {{0,1},{2,3}}
_LISTS = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
# [2,2]<=[4], the numbers from 0 to 3 in this shape, a group a row; or before that transposed: [2,2]<=[2,2]T(1,0)
_COUNTED = re.compile(r"replica_groups=\[([\d,]+)\]<=(\[[\d,]+\]\S*?)(?:,\s|$)")
# mesh['x'=2,'y'=2] {'y'}: along y; {'y':(1)2}: along a part of y; device_ids=(0,2,1,3) or ([2,2]T(1,0)): in this order
_MESH = re.compile(r"replica_groups=mesh\[(.*?)\](?:, device_ids=\((.*?\)?)\))? \{(.*?)\}")
_COLLECTIVE = re.compile(r" (?:replica_groups|source_target_pairs)=")

_lock = threading.Lock()  # held while cliques are made; not by the thread that runs the small programs
_known: weakref.WeakKeyDictionary[Any, set[tuple[int, ...]]] = weakref.WeakKeyDictionary()  # ids, by JAX's client
_looked_at: weakref.WeakSet[Any] = weakref.WeakSet()
_makes = threading.local()
_is_watching = False


def watch_programs() -> None:
    """Have ``prepare`` called before each program runs."""
    global _is_watching
    if _is_watching:
        return
    pxla: Any = importlib.import_module("jax._src.interpreters.pxla")
    native = pxla.ExecuteReplicated.__call__

    @functools.wraps(native)
    def run(self: Any, *args: Any) -> Any:
        if self not in _looked_at:
            prepare(self)
            _looked_at.add(self)
        return native(self, *args)

    pxla.ExecuteReplicated.__call__ = run
    _is_watching = True


def prepare(program: Any) -> None:
    """Make the communicators of an executable's cliques that this process belongs to and has none for."""
    if hasattr(_makes, "clique"):
        return
    devices = _devices(program)
    if not devices or devices[0].platform != "cpu":
        return
    text = program.xla_executable.hlo_modules()[0].to_string()
    if not _COLLECTIVE.search(text):
        return
    rank = _core.world().rank()  # type: ignore[union-attr]
    with _lock:
        known = _known.setdefault(devices[0].client, set())
        for clique in cliques_of(text, len(devices)):
            members = [devices[i] for i in clique]
            ids = tuple(device.id for device in members)
            if ids not in known and any(device.process_index == rank for device in members):
                _make(members)
                known.add(ids)


def _devices(program: Any) -> Sequence[Any]:
    """In the order in which the program numbers them."""
    for sharding in (*program.in_handler.in_shardings, *program.out_handler.out_shardings):
        if devices := getattr(sharding, "_device_assignment", None):
            return tuple(devices)
    return ()


def cliques_of(text: str, n: int) -> Iterator[tuple[int, ...]]:
    """The cliques of ``n`` devices in a compiled program, as numbers from 0, each once, in the order of the text."""
    found: dict[tuple[int, ...], None] = {}
    for line in text.splitlines():
        if not _COLLECTIVE.search(line):
            continue
        if lists := _LISTS.search(line):
            groups = [_numbers(each) for each in re.findall(r"\{([\d,]*)\}", lists[1])]
        elif counted := _COUNTED.search(line):
            groups = _rows(_array(counted[2]).reshape(_numbers(counted[1])))
        elif mesh := _MESH.search(line):
            groups = _along_axes(*mesh.groups())
        elif "replica_groups=" in line:
            raise errors.Error(
                f"[jit] mlxdist cannot read which processes communicate in {line.strip()[:200]}: report it, and set "
                "JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo"
            )
        else:
            groups = []
        found |= dict.fromkeys(groups or [tuple(range(n))])
    yield from found


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", text)))


def _rows(array: Any) -> list[tuple[int, ...]]:
    return [tuple(row) for row in array.tolist()]


def _array(text: str) -> Any:
    """``[2,2]T(1,0)``: the numbers from 0 in this shape, with its axes in this order."""
    shape, _, order = text.partition("T")
    numbers = np.arange(np.prod(_numbers(shape), dtype=int)).reshape(_numbers(shape))
    return numbers.transpose(_numbers(order)) if order else numbers


def _along_axes(axes: str, ids: str | None, grouped: str) -> list[tuple[int, ...]]:
    sizes = {name: int(size) for name, size in re.findall(r"'([^']*)'=(\d+)", axes)}
    chosen = [
        (name, int(before or 1), int(size or sizes[name]))
        for name, before, size in re.findall(r"'([^']*)'(?::\((\d+)\)(\d+))?", grouped)
    ]
    # Each axis is cut where a chosen part of it begins or ends.
    dims: list[tuple[str, int, int]] = []  # axis, the product of the sizes before it in this axis, size
    for axis, size in sizes.items():
        cuts = sorted({1, size, *(cut for name, before, n in chosen if name == axis for cut in (before, before * n))})
        dims += [(axis, before, after // before) for before, after in itertools.pairwise(cuts)]
    devices = np.arange(np.prod([*sizes.values()], dtype=int))
    if ids:
        devices = _array(ids).ravel() if "[" in ids else np.array(_numbers(ids))
    last = [
        i
        for name, before, n in chosen
        for i, (axis, at, _) in enumerate(dims)
        if axis == name and before <= at < before * n
    ]
    first = [i for i in range(len(dims)) if i not in last]
    ordered = devices.reshape([size for _, _, size in dims]).transpose(first + last)
    return _rows(ordered.reshape(-1, np.prod([dims[i][2] for i in last], dtype=int)))


def _make(members: list[Any]) -> None:
    """Run a program on these devices, in this order, while XLA's splits are for the group of their processes."""
    ranks = [device.process_index for device in members]
    if len(set(ranks)) < len(ranks):
        raise errors.Error(
            "[jit] a process has several CPU devices in this program: give each process one, or use JAX's gloo "
            "(JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo)"
        )
    group = world.init().group(ranks)
    failed: list[Exception] = []
    thread = threading.Thread(target=_run, args=(members, failed))  # where no context of the program's is in force
    _core.set_jax_clique(group)
    try:
        thread.start()
        thread.join()
    finally:
        while thread.is_alive():
            thread.join()  # after Ctrl-C, which ends its wait, too
        _core.set_jax_clique(None)
    if failed:
        raise failed[0]


def _run(members: list[Any], failed: list[Exception]) -> None:
    jax: Any = importlib.import_module("jax")
    _makes.clique = True
    try:
        mesh = jax.sharding.Mesh(np.array(members), ("x",))
        spec = jax.sharding.PartitionSpec("x")
        gather = functools.partial(jax.lax.all_gather, axis_name="x")
        own = next(device for device in members if device.process_index == jax.process_index())
        with jax.transfer_guard("allow"):
            x = jax.make_array_from_single_device_arrays(
                (len(members),), jax.sharding.NamedSharding(mesh, spec), [jax.device_put(np.zeros(1, np.int32), own)]
            )
            jax.jit(jax.shard_map(gather, mesh=mesh, in_specs=spec, out_specs=spec))(x).block_until_ready()
    except Exception as error:
        failed.append(error)
