"""A host sends no more over the wire than the operation requires, wherever the ranks are."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import mpis
from hosts import wire
from hosts.conftest import Job

# Headers of large frames, acknowledgements, and what the ranks agree on before
OVERHEAD = 1.03
# Acknowledgements of a host that only receives, of all that it receives
BESIDES = 0.05


def least(operation: str, nbytes: int, counts: list[int], host: int) -> float:
    """How many bytes ``host`` has to send if each rank passes ``nbytes``; for a broadcast, unless it is the last."""
    hosts, ranks, here = len(counts), sum(counts), counts[host]
    if operation == "all_gather":
        return (hosts - 1) * here * nbytes
    if operation == "sum_scatter":
        return (ranks - here) / ranks * nbytes
    if operation == "all_to_all":
        return here * (ranks - here) / ranks * nbytes
    if operation == "scatter":
        return 0 if host else (ranks - here) / ranks * nbytes
    if operation == "gather":
        return host and nbytes * here
    if operation == "reduce":
        # More than two hosts share the work: each reduces a block, so that root's host sends those of the others, too
        return nbytes if host else (hosts - 1) / hosts * nbytes * (hosts > 2)
    if operation.startswith("broadcast"):
        return nbytes
    return 2 * (hosts - 1) / hosts * nbytes


def test_the_least_bytes(job: Job, where: mpis.MPI, layout: str) -> None:
    finished = job(where, layout, Path(wire.__file__))
    assert finished.status == 0, finished.output
    lines = re.findall(r"h(\d) \| (.*) \| (\d+) \| (\d+)$", finished.output, re.MULTILINE)
    counts = [int(count) for count in layout.split("+")]
    too_much = []
    for operation, nbytes in itertools.product(wire.OPERATIONS, wire.LENGTHS):
        everything = everything_needed = 0.0
        for host in range(len(counts)):
            sent = min(int(s) for h, *what, s in lines if int(h) == host + 1 and what == [operation, str(nbytes)])
            needed = least(operation, nbytes, counts, host)
            if sent > OVERHEAD * needed + BESIDES * nbytes:
                too_much.append(f"{operation}, {nbytes} bytes: h{host + 1} sent {sent} of {needed} at least")
            everything, everything_needed = everything + sent, everything_needed + needed
        if operation.startswith("broadcast"):
            everything_needed -= nbytes
        assert everything_needed <= everything, (operation, nbytes)  # or they were not counted
        if everything > OVERHEAD * everything_needed:
            too_much.append(f"{operation}, {nbytes} bytes: all hosts sent {everything / everything_needed:.2f} of it")
    assert too_much == [], "\n".join(too_much)
