"""The whole diagnosis: what was found here, and what ranks report that are started to verify a sum."""

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

TIMEOUT_S = 60.0  # for the ranks to start, verify and end
LAST_LINES = 8  # of their stderr
# Hydra's stack, and its banner about every program that fails
_NOISE = re.compile(r"\[(mpiexec|proxy)[@:]|=|\s*$")


@dataclass
class Diagnosis:
    """The result of ``mlxdist doctor``.

    Attributes:
        facts: what was found and chosen.
        tried: (place, reason) for everything that was tried before and rejected.
        findings: what is wrong or unusual.
        hosts: the host of each rank that verified the sum; empty if none did.
        took_s: from the start of MPI to the sum.
        differences: for each name that differs between ranks, the values and the ranks that have them.
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
        """Whether ranks have verified a sum, and nothing is wrong."""
        return bool(self.hosts) and not self.errors

    def who(self, ranks: Sequence[int]) -> str:
        """ranks 0, 2 (h1, h3)."""
        names = ", ".join(dict.fromkeys(self.hosts[rank] for rank in ranks))
        return f"rank{'s' * (len(ranks) > 1)} {', '.join(map(str, ranks))} ({names})"


def diagnose(hosts: Sequence[str]) -> tuple[Diagnosis, Environment]:
    """Check the environment and, if that finds no error, verify a sum across ranks; return the environment too."""
    env = environment.examine(hosts, max(2, len(hosts)))
    diagnosis = Diagnosis(environment.facts(env), env.tried, checks.findings(env))
    if not diagnosis.errors:
        _run_probe(diagnosis, env)
    return diagnosis, env


def _run_probe(diagnosis: Diagnosis, env: Environment) -> None:
    """Run the probe in a child: as a rank of the launcher that started this process, else on ranks started for it."""
    command = probe.program(env.hosts)
    if not env.launcher:
        where = ["--hosts", ",".join(env.hosts)] if env.hosts else []
        options = ["-n", str(env.ranks), "--timeout", str(TIMEOUT_S), *where]
        command = [sys.executable, "-m", "mlxdist", "launch", *options, *command]
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S + 5,  # launch has its own timeout
            close_fds=False,  # MPICH's ranks inherit a descriptor
        )
    except subprocess.TimeoutExpired:
        fact = f"not all ranks ended within {TIMEOUT_S:.0f} s"
        diagnosis.findings.append(Finding(ERROR, fact, _likely_remedy(diagnosis, env)))
        return
    results = list(_results(done.stdout))
    for result in results:
        if "hosts" in result:
            _add_combined(diagnosis, result)
    if len(places := set(diagnosis.hosts)) < len(env.hosts) and places:
        # an mpirun may read its list of hosts differently, as Intel's does (2021.18)
        fact = f"{len(env.hosts)} hosts were named, but ranks ran on {', '.join(sorted(places))} only"
        diagnosis.findings.append(Finding(ERROR, fact, f"{env.mpirun} -machinefile FILE, with a line for each host"))
    if not diagnosis.hosts:
        _add_early(diagnosis, [result for result in results if "host" in result])
    errors = dict.fromkeys(result["error"] for result in results if "error" in result)
    diagnosis.findings += map(Finding.of, errors)
    if done.returncode and not diagnosis.errors:
        lines = re.sub(rf"(; last: )?{probe.MARK}.*", "", done.stderr).splitlines()
        last = [line for line in lines if not _NOISE.match(line)][-LAST_LINES:]
        fact = "\n".join((f"the ranks ended with status {done.returncode}", *last))
        diagnosis.findings.append(Finding(ERROR, fact, _likely_remedy(diagnosis, env)))


def _results(output: str) -> Iterator[dict[str, Any]]:
    for line in output.splitlines():
        if probe.MARK in line:
            with contextlib.suppress(ValueError):  # another rank printed into the line
                yield json.loads(line.partition(probe.MARK)[2])


def _add_combined(diagnosis: Diagnosis, result: dict[str, Any]) -> None:
    """Add the result of rank 0, which covers all ranks."""
    diagnosis.facts |= result["facts"]
    diagnosis.hosts, diagnosis.took_s = result["hosts"], result["took_s"]
    diagnosis.differences = result["differences"]
    for fields, ranks in result["findings"]:
        finding = Finding(**fields)
        if finding not in diagnosis.findings:
            who = "all ranks" if len(ranks) == len(diagnosis.hosts) else diagnosis.who(ranks)
            diagnosis.findings.append(dataclasses.replace(finding, fact=f"{who}: {finding.fact}"))


def _add_early(diagnosis: Diagnosis, results: Sequence[dict[str, Any]]) -> None:
    """Add the findings of ranks that failed before the sum."""
    found = dict.fromkeys((Finding(**fields), result["host"]) for result in results for fields in result["findings"])
    diagnosis.findings += [
        dataclasses.replace(finding, fact=f"{host}: {finding.fact}")
        for finding, host in found
        if finding not in diagnosis.findings
    ]


def _likely_remedy(diagnosis: Diagnosis, env: Environment) -> str:
    """What to try when there is no better advice."""
    remedies = [finding.remedy for finding in diagnosis.findings if finding.severity == WARNING]
    where = f"--hosts {','.join(env.hosts)}" if env.hosts else f"-n {env.ranks}"
    return "; or ".join(remedies) or f"mlxdist launch {where} program.py, which shows all output"
