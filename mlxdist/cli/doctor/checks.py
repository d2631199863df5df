"""The table of everything that is checked before any rank is started.

Whether ranks work is for the probe to find out. A check reports an error only where they certainly cannot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mlxdist.cli.doctor import checks_choice, checks_installed, checks_machine, checks_network
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import NOTE, Finding


@dataclass(frozen=True)
class Check:
    """A function that yields findings, and whether each rank calls it too, on its own host."""

    find: Callable[[Environment], Iterator[Finding]]
    on_each_rank: bool = False


CHECKS = (
    Check(checks_choice.values, on_each_rank=True),
    Check(checks_choice.parent),
    Check(checks_choice.opal_prefix),
    Check(checks_choice.library),
    Check(checks_choice.launchers_on_path),
    Check(checks_choice.mlx_libmpi, on_each_rank=True),
    Check(checks_installed.mpi4py),
    Check(checks_machine.shared_memory, on_each_rank=True),
    Check(checks_machine.slots),
    Check(checks_machine.root),
    Check(checks_network.loopback),
    Check(checks_network.reachable),
    Check(checks_network.misleading, on_each_rank=True),
    Check(checks_network.measured),
    Check(checks_installed.copies, on_each_rank=True),
    Check(checks_installed.stale, on_each_rank=True),
)


def findings(environment: Environment, on_each_rank: bool = False) -> list[Finding]:
    """The findings of all checks, or of those for each rank only."""
    found: list[Finding] = []
    for check in CHECKS:
        if check.on_each_rank >= on_each_rank:
            try:
                found += check.find(environment)
            except OSError as error:
                found.append(Finding(NOTE, f"{check.find.__name__} could not be checked", str(error)))
    return found
