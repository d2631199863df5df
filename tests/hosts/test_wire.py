"""A host sends no more over the wire than the operation requires, wherever the ranks are."""

from __future__ import annotations

from pathlib import Path

import mpis
from hosts import wire
from hosts.conftest import Job

# Headers of large frames, acknowledgements, and what the ranks agree on before
OVERHEAD = 1.03


def least(operation: str, nbytes: int, counts: list[int], host: int) -> float:
    """How many bytes ``host`` has to send if each rank passes ``nbytes``."""
    hosts, ranks, here = len(counts), sum(counts), counts[host]
    if operation == "all_gather":
        return (hosts - 1) * here * nbytes
    if operation == "sum_scatter":
        return (ranks - here) / ranks * nbytes
    if operation.startswith("broadcast"):  # from host to host: all but the last pass it on
        return nbytes
    return 2 * (hosts - 1) / hosts * nbytes


def test_the_least_bytes(job: Job, where: mpis.MPI, layout: str) -> None:
    finished = job(where, layout, Path(wire.__file__))
    assert finished.status == 0, finished.output
    lines = [line.partition("] ")[2].split(" | ") for line in finished.output.splitlines() if line.count(" | ") == 3]
    counts = [int(count) for count in layout.split("+")]
    sent = {(operation, int(nbytes), int(host[1:]) - 1): int(count) for host, operation, nbytes, count in lines}
    assert len(sent) == len(wire.OPERATIONS) * len(wire.LENGTHS) * len(counts), finished.output
    ratios = {key: count / least(key[0], key[1], counts, key[2]) for key, count in sent.items()}
    too_much = [
        f"{operation}, {nbytes} bytes: h{host + 1} sent {ratio:.2f} of the least"
        for (operation, nbytes, host), ratio in ratios.items()
        if ratio > OVERHEAD
    ]
    assert too_much == [], "\n".join(too_much)
    for name in (name for name in wire.OPERATIONS if name.startswith("broadcast")):
        for nbytes in wire.LENGTHS:
            everything = sum(sent[name, nbytes, host] for host in range(len(counts)))
            assert everything <= OVERHEAD * (len(counts) - 1) * nbytes, (name, nbytes, everything)
