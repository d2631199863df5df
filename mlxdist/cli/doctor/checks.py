"""The table of all that is checked before anything is started.

Whether ranks can be started is for a trial to say: a check finds an error only where that cannot come out well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlxdist.cli.doctor import checks_choice, checks_installed, checks_machine
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, Finding


@dataclass(frozen=True)
class Check:
    """A function that finds something, and whether each rank does it too, on its host."""

    find: Callable[[Environment], Iterator[Finding]]
    on_each_rank: bool = False


CHECKS = (
    Check(checks_choice.values, on_each_rank=True),
    Check(checks_choice.parent),
    Check(checks_choice.opal_prefix),
    Check(checks_choice.library),
    Check(checks_choice.pair),
    Check(checks_choice.mlx_libmpi, on_each_rank=True),
    Check(checks_installed.mpi4py),
    Check(checks_machine.shared_memory, on_each_rank=True),
    Check(checks_machine.slots),
    Check(checks_machine.root),
    Check(checks_machine.interfaces, on_each_rank=True),
    Check(checks_machine.reachable),
    Check(checks_installed.copies, on_each_rank=True),
    Check(checks_installed.stale, on_each_rank=True),
)


def findings(s: Environment, on_each_rank: bool = False) -> list[Finding]:
    """What all checks find; only those of each rank, if asked."""
    found: list[Finding] = []
    for check in CHECKS:
        if check.on_each_rank >= on_each_rank:
            try:
                found += check.find(s)
            except OSError as error:
                found.append(Finding(NOTE, f"{check.find.__name__} could not be checked", str(error)))
    return found
