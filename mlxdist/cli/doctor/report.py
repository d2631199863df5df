"""What ``mlxdist doctor`` prints, and the report that a user can send when something fails."""

from __future__ import annotations

import dataclasses
import os
import platform
import resource
import sys
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence

from mlxdist import config
from mlxdist.cli.doctor import environment, privacy
from mlxdist.cli.doctor.diagnosis import Diagnosis
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.doctor.finding import ERROR, NOTE, WARNING
from mlxdist.cli.launch import interfaces, mpirun
from mlxdist.cli.launch.interfaces import Interface

STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}
# Prints 1 for a program for Intel's processors on one of Apple's, which cannot open a library for the latter.
ROSETTA = ("/usr/sbin/sysctl", "-n", "sysctl.proc_translated")
HEADING = """mlxdist doctor --report
Names of users and hosts, the home directory and public addresses have been replaced, and secrets hidden. Please read
it all the same before you send it."""


def lines(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    """The report on the terminal: each line, and its style."""
    rows = [*diagnosis.facts.items(), *(("tried", f"{place}: {why}") for place, why in diagnosis.tried)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        yield f"{name:{width}}  {value}", ""
    for finding in diagnosis.findings:
        yield f"\n{finding.severity}: {finding.fact}", STYLES[finding.severity]
        yield f"    {finding.remedy}", ""
    for name, values in diagnosis.differences.items():
        yield f"\n{name} differs:", "bold"
        for value, ranks in values.items():
            yield f"    {diagnosis.who(ranks)}: {value or '(not set)'}", ""
    if size := len(diagnosis.hosts):
        places = ", ".join(f"{diagnosis.hosts.count(host)} on {host}" for host in dict.fromkeys(diagnosis.hosts))
        yield f"\n{size} rank{'s' * (size > 1)} ({places}) verified a sum in {diagnosis.took_s:.1f} s.", ""
    errors = len(diagnosis.errors)
    if not diagnosis.works:
        verdict = f"It does not work: {errors} error{'s' * (errors != 1)} above."
    elif diagnosis.differences:
        verdict = f"It works. The ranks differ in {', '.join(diagnosis.differences)}, see above."
    else:
        verdict = "It works."
    yield verdict, "bold green" if diagnosis.works else "bold red"


def to_send(diagnosis: Diagnosis, env: Environment) -> str:
    """The report in a file: that on the terminal and all that may explain it, without what is private."""
    differences = {name: _without_secrets(name, values) for name, values in diagnosis.differences.items()}
    said = (line for line, _ in lines(dataclasses.replace(diagnosis, differences=differences)))
    return _file({"What doctor says": said, "Every MPI that was found": _mpis(env)}, [*env.hosts, *diagnosis.hosts])


def _without_secrets(name: str, values: Mapping[str, list[int]]) -> dict[str, list[int]]:
    """That they differ is still to be seen."""
    shown = [privacy.value_of(name, value) for value in values]
    numbered = [f"{value} {number}" if value == privacy.HIDDEN else value for number, value in enumerate(shown, 1)]
    return dict(zip(numbered, values.values(), strict=True))


def of_failure(error: Exception, hosts: Sequence[str]) -> str:
    """The same where doctor itself has failed."""
    return _file({"doctor itself failed": "".join(traceback.format_exception(error)).splitlines()}, hosts)


def _file(first: Mapping[str, Iterable[str]], hosts: Sequence[str]) -> str:
    there = interfaces.interfaces()
    variables = (f"{name}={privacy.value_of(name, value)}" for name, value in config.reported(os.environ).items())
    sections = {**first, "System": _system(), "Environment": variables, "Networks": map(_described, there)}
    parts = [HEADING, *(f"== {name}\n{_section(found)}" for name, found in sections.items())]
    return privacy.cleaned("\n\n".join(parts) + "\n", hosts, there)


def _section(found: Iterable[str]) -> str:
    """Its lines. A system that is new to us may break one section, and the others explain why."""
    written = []
    try:
        for line in found:
            written.append(line)
    except Exception:
        written.append(traceback.format_exc())
    return "\n".join(written)


def _system() -> Iterator[str]:
    yield platform.platform()
    if sys.platform == "darwin" and environment.output_of([*ROSETTA], os.environ).strip() == "1":
        yield "Python runs by Rosetta"
    yield f"{mpirun.cores()} cores, {os.cpu_count()} with threads"
    yield f"{platform.python_implementation()} {sys.version} for {platform.machine()}"
    if is_gil_enabled := getattr(sys, "_is_gil_enabled", None):  # from 3.13 on
        yield f"with{'' if is_gil_enabled() else 'out'} the GIL"
    yield f"in {sys.prefix}, made with {sys.base_prefix}"
    yield "{} open files at most".format(*resource.getrlimit(resource.RLIMIT_NOFILE))


def _mpis(env: Environment) -> Iterator[str]:
    for path, chosen in environment.every_libmpi(env.context):
        yield f"{path} ({chosen.found_via})"
        if chosen.library:
            version, _, _ = chosen.library.version_string.partition("\n")
            yield f"    ABI {chosen.library.family}: {version.strip()}"
            yield f"    launcher: {chosen.mpirun or 'none'}"
        yield from (f"    {why}" for _, why in chosen.tried)


def _described(interface: Interface) -> str:
    marks = [*(["a bridge"] if interface.is_bridge else []), *([] if interface.has_carrier else ["nothing connected"])]
    return ", ".join((f"{interface.name} {interface.address} in {interface.network}", *marks))
