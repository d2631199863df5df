"""Say what was found and chosen, what is wrong, and the command that mends it; then let ranks prove a sum.

    mlxdist doctor                     # 2 ranks here
    mlxdist doctor --hosts a,b         # a rank on each host
    mpirun -np 4 mlxdist doctor        # the ranks of that launcher

Ends with status 0 if ranks work, else with 1. Where ranks differ in versions, paths or environment, it says who has
what.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable

from mlxdist.cli.doctor.diagnosis import Diagnosis, diagnose
from mlxdist.cli.doctor.finding import ERROR, NOTE, WARNING
from mlxdist.cli.launch import hosts

HELP = "say what is wrong, and the command that mends it"
# What rank 0 has to say comes before a launcher ends the job because another rank has failed.
AFTER_S = 3.0
STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}
Say = Callable[[str, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mlxdist doctor``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", type=hosts.from_text, default=[], metavar="a,b", help="start a rank on each of these")
    where.add_argument(
        "--hostfile", type=hosts.from_file, dest="hosts", metavar="FILE", help="the same, as launch reads them"
    )
    parser.add_argument("--json", action="store_true", help="print one object of JSON")


def run(arguments: argparse.Namespace) -> int:
    """Look, prove and report; 0 if ranks work, else 1."""
    diagnosis, here = diagnose([host.name for host in arguments.hosts])
    if here.launcher and here.launcher.rank:
        return _as_other_rank(diagnosis)
    if arguments.json:
        print(json.dumps({"works": diagnosis.works, **dataclasses.asdict(diagnosis)}, indent=1))
    else:
        _report(diagnosis, _printer())
    return int(not diagnosis.works)


def _as_other_rank(diagnosis: Diagnosis) -> int:
    """A rank that is not the first says only what is wrong with it."""
    for finding in diagnosis.errors:
        print(f"mlxdist doctor: {finding.fact}: {finding.remedy}", file=sys.stderr, flush=True)
    if diagnosis.errors:
        time.sleep(AFTER_S)
    return int(bool(diagnosis.errors))


def _printer() -> Say:
    """Prints a line in a style: in colours on a terminal where rich is installed."""
    try:
        from rich.console import Console
    except ImportError:
        return lambda line, style: print(line)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda line, style: console.print(line, style=style or None)


def _report(diagnosis: Diagnosis, say: Say) -> None:
    rows = [*diagnosis.facts.items(), *(("tried", f"{place}: {why}") for place, why in diagnosis.tried)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        say(f"{name:{width}}  {value}", "")
    for finding in diagnosis.findings:
        say(f"\n{finding.severity}: {finding.fact}", STYLES[finding.severity])
        say(f"    {finding.remedy}", "")
    for name, values in diagnosis.differences.items():
        say(f"\n{name} differs:", "bold")
        for value, ranks in values.items():
            say(f"    {diagnosis.who(ranks)}: {value or '(not set)'}", "")
    if size := len(diagnosis.hosts):
        places = ", ".join(f"{diagnosis.hosts.count(host)} on {host}" for host in dict.fromkeys(diagnosis.hosts))
        say(f"\n{size} rank{'s' * (size > 1)} ({places}) proved a sum in {diagnosis.took_s:.1f} s.", "")
    wrong = len(diagnosis.errors)
    say(
        "It works." if diagnosis.works else f"It does not work: {wrong} error{'s' * (wrong != 1)} above.",
        "bold green" if diagnosis.works else "bold red",
    )
