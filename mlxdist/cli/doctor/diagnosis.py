"""All that there is to say: what was found here, and what ranks that are started for it, or for us, have proved."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlxdist.cli.doctor import checks, environment, probe
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import ERROR, WARNING, Finding

LIMIT_S = 60.0  # for ranks to start, prove and end
SAID = 8  # lines of what was said last
# Hydra's stack, and its words on every program that fails
_NOISE = re.compile(r"\[(mpiexec|proxy)[@:]|=|\s*$")


@dataclass
class Diagnosis:
    """What there is to say.

    Attributes:
        facts: what was found and chosen.
        tried: (place, why it did not do) of everything before.
        findings: what is wrong or odd.
        hosts: of each rank that took part in the proof; none if there was none.
        took_s: from a rank's start of MPI to its sum.
        differences: of each name, the values with the ranks that have them.
    """

    facts: dict[str, str]
    tried: Sequence[tuple[str, str]]
    findings: list[Finding]
    hosts: list[str] = field(default_factory=list)
    took_s: float = 0.0
    differences: probe.Values = field(default_factory=dict)

    @property
    def errors(self) -> list[Finding]:
        """The findings that keep ranks from working."""
        return [finding for finding in self.findings if finding.severity == ERROR]

    @property
    def works(self) -> bool:
        """Whether ranks have proved a sum, and nothing is wrong."""
        return bool(self.hosts) and not self.errors

    def who(self, ranks: Sequence[int]) -> str:
        """ranks 0, 2 (h1, h3)."""
        names = ", ".join(dict.fromkeys(self.hosts[rank] for rank in ranks))
        return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} ({names})"


def diagnose(hosts: Sequence[str]) -> tuple[Diagnosis, Environment]:
    """Look here and, unless that shows that it cannot work, let ranks prove a sum; and what was looked at."""
    here = environment.look(hosts, max(2, len(hosts)))
    diagnosis = Diagnosis(environment.facts(here), here.tried, checks.findings(here))
    if not diagnosis.errors:
        _prove(diagnosis, here)
    return diagnosis, here


def _prove(diagnosis: Diagnosis, here: Environment) -> None:
    """Be a rank of the launcher that started this process, by a child, or else start some."""
    command = probe.program(here.hosts)
    if not here.launcher:
        where = ["--hosts", ",".join(here.hosts)] if here.hosts else []
        options = ["-n", str(here.ranks), "--timeout", str(LIMIT_S), *where]
        command = [sys.executable, "-m", "mlxdist", "launch", *options, *command]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LIMIT_S + 5,  # launch has its own limit
            close_fds=False,  # a rank of MPICH's inherits the way to its launcher
        )
    except subprocess.TimeoutExpired:
        fact = f"the ranks did not all come within {LIMIT_S:.0f} s"
        diagnosis.findings.append(Finding(ERROR, fact, _likely_remedy(diagnosis)))
        return
    told = list(_told(done.stdout))
    for one in told:
        if "hosts" in one:
            _take(diagnosis, one)
    if len(places := set(diagnosis.hosts)) < len(here.hosts) and places:
        # an mpirun may read its list of hosts in a way of its own, as Intel's does (2021.18)
        fact = f"{len(here.hosts)} hosts were named, but ranks are on {', '.join(sorted(places))} only"
        diagnosis.findings.append(Finding(ERROR, fact, f"{here.mpirun} -machinefile FILE, with a line for each host"))
    if not diagnosis.hosts:
        _take_early(diagnosis, [one for one in told if "host" in one])
    errors = dict.fromkeys(one["error"] for one in told if "error" in one)
    diagnosis.findings += map(Finding.of, errors)
    if done.returncode and not diagnosis.errors:
        lines = re.sub(rf"(; last: )?{probe.MARK}.*", "", done.stderr).splitlines()
        said = [line for line in lines if not _NOISE.match(line)][-SAID:]
        fact = "\n".join((f"the ranks ended with status {done.returncode}", *said))
        diagnosis.findings.append(Finding(ERROR, fact, _likely_remedy(diagnosis)))


def _told(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if probe.MARK in line:
            with contextlib.suppress(ValueError):  # another rank spoke within the line
                yield json.loads(line.partition(probe.MARK)[2])


def _take(diagnosis: Diagnosis, whole: dict[str, Any]) -> None:
    """Add what rank 0 tells of all ranks."""
    diagnosis.facts |= whole["facts"]
    diagnosis.hosts, diagnosis.took_s = whole["hosts"], whole["took_s"]
    diagnosis.differences = whole["differences"]
    for fields, ranks in whole["findings"]:
        finding = Finding(**fields)
        if finding not in diagnosis.findings:
            who = "all ranks" if len(ranks) == len(diagnosis.hosts) else diagnosis.who(ranks)
            diagnosis.findings.append(dataclasses.replace(finding, fact=f"{who}: {finding.fact}"))


def _take_early(diagnosis: Diagnosis, told: Sequence[dict[str, Any]]) -> None:
    """Add what ranks have found that did not come to prove anything."""
    found = dict.fromkeys((Finding(**fields), one["host"]) for one in told for fields in one["findings"])
    diagnosis.findings += [
        dataclasses.replace(finding, fact=f"{host}: {finding.fact}")
        for finding, host in found
        if finding not in diagnosis.findings
    ]


def _likely_remedy(diagnosis: Diagnosis) -> str:
    """What to try, where nobody says what was wrong."""
    remedies = [finding.remedy for finding in diagnosis.findings if finding.severity == WARNING]
    return "; or ".join(remedies) or "mlxdist launch -n 2 program.py, which shows all that is said"
