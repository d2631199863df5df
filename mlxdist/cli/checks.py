"""The table of all that is checked before anything is started.

Whether ranks can be started is for a trial to say: a check finds an error only where that cannot come out well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlxdist.cli import choice, installed, machine
from mlxdist.cli.finding import NOTE, Finding
from mlxdist.cli.situation import Situation


@dataclass(frozen=True)
class Check:
    """A function that finds something, and whether each rank does it too, on its host."""

    find: Callable[[Situation], Iterator[Finding]]
    on_each_rank: bool = False


CHECKS = (
    Check(choice.values, on_each_rank=True),
    Check(choice.parent),
    Check(choice.opal_prefix),
    Check(choice.library),
    Check(choice.pair),
    Check(choice.mlx_libmpi, on_each_rank=True),
    Check(installed.mpi4py),
    Check(machine.shared_memory, on_each_rank=True),
    Check(machine.slots),
    Check(machine.root),
    Check(machine.interfaces, on_each_rank=True),
    Check(machine.reachable),
    Check(installed.copies, on_each_rank=True),
    Check(installed.stale, on_each_rank=True),
)


def findings(s: Situation, on_each_rank: bool = False) -> list[Finding]:
    """What all checks find; only those of each rank, if asked."""
    found: list[Finding] = []
    for check in CHECKS:
        if check.on_each_rank >= on_each_rank:
            try:
                found += check.find(s)
            except OSError as error:
                found.append(Finding(NOTE, f"{check.find.__name__} could not be checked", str(error)))
    return found
