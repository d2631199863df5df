"""A tree of arrays of one rank, such as a model's parameters, on every rank: many small arrays share one message."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from mlxdist import _core, arrays, dispatch, trees, work
from mlxdist.arrays import mlx

OPERATION = "broadcast"


def adopt(x: Any, src: int, group: _core.Group, stream: Any, out: Any) -> trees.Leaf:
    """A leaf that can be communicated, or an error."""
    if mlx.owns(x):
        mlx.check(OPERATION, x.size, out)
        return trees.Leaf(x, None, trees.MLX)
    framework, array, into, _ = dispatch.prepared(OPERATION, x, src, group, stream, out)
    return trees.Leaf(array, framework, trees.place_of(framework, array), into, out)


def way_of(group: _core.Group, src: int, stream: Any, wait: bool) -> trees.Way:
    """Buckets in host memory are bytes."""
    return trees.Way(
        lambda sources, targets, type, digest: _core.broadcast_joined(group, src, sources, targets, digest, wait),
        lambda flat, digest: _core.prepare(OPERATION, group, src, flat, digest=digest),
        lambda framework, flat: flat,
        lambda lazy, xs, type, digest: lazy.broadcast_joined(xs, src, group, stream, digest),
        wait,
        mixes_dtypes=True,
    )


def broadcast(tree: Any, src: Any, group: Any, stream: Any, out: Any, wait: bool) -> Any:
    """Rank ``src``'s leaves in the tree of each rank: see ops.broadcast."""
    group = dispatch.group_of(OPERATION, group)
    src = _core.prepare(OPERATION, group, src, np.empty(0, np.uint8)).peer
    leaves, structure = trees.flatten(OPERATION, tree)
    outs: list[Any] = [None] * len(leaves)
    if out is not None:
        outs, other = trees.flatten(OPERATION, out)
        if other != structure:
            raise ValueError(f"[{OPERATION}] out is a tree of another structure than x: pass x, or a tree like it")
    ready = trees.adopted(tree, "x", leaves, lambda place: adopt(leaves[place], src, group, stream, outs[place]))
    trees.refuse_lazy(OPERATION, ready, wait)

    def whole(results: list[Any]) -> Any:
        if out is not None:
            return out
        is_unchanged = all(result is leaf for result, leaf in zip(results, leaves, strict=True))
        return tree if is_unchanged else trees.rebuild(tree, iter(results))

    if group.size() > 1:
        way = way_of(group, src, stream, wait)
        if not leaves:  # the other ranks may have some
            begun = way.in_host_memory([], [], 0, trees.digest_of(structure, b"", 0))
            return tree if begun is None else work.Work([begun[0]], lambda: tree)
        calls, results_of = trees.communicated(ready, way, trees.BUCKET_NBYTES, structure)
        return whole(results_of()) if wait else work.Work(calls, lambda: whole(results_of()))
    if out is not None:
        for leaf in ready:
            cast(arrays.Framework, leaf.framework).copyto(leaf.into, leaf.array)
    return dispatch.given(whole([leaf.array for leaf in ready]), wait)
