"""The options of ``mlxdist doctor``, and its report."""

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

# A launcher may end the job as soon as a rank has failed: rank 0 gets some time to print its report first.
REPORT_S = 3.0
STYLES = {ERROR: "bold red", WARNING: "yellow", NOTE: "cyan"}
PrintLine = Callable[[str, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mlxdist doctor``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", type=hosts.from_text, default=[], metavar="a,b", help="start a rank on each of these")
    where.add_argument(
        "--hostfile", type=hosts.from_file, dest="hosts", metavar="FILE", help="the same, from a file as for launch"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Diagnose and report; 0 if ranks work, else 1."""
    diagnosis, environment = diagnose([host.name for host in arguments.hosts])
    if environment.launcher and environment.launcher.rank:
        return _report_other_rank(diagnosis)
    if arguments.json:
        print(json.dumps({"works": diagnosis.works, **dataclasses.asdict(diagnosis)}, indent=1))
    else:
        _report(diagnosis, _line_printer())
    return int(not diagnosis.works)


def _report_other_rank(diagnosis: Diagnosis) -> int:
    """A rank other than 0 reports only its own errors."""
    for finding in diagnosis.errors:
        print(f"mlxdist doctor: {finding.fact}: {finding.remedy}", file=sys.stderr, flush=True)
    if diagnosis.errors:
        time.sleep(REPORT_S)
    return int(bool(diagnosis.errors))


def _line_printer() -> PrintLine:
    """Prints a line in a style: in colours on a terminal where rich is installed."""
    try:
        from rich.console import Console
    except ImportError:
        return lambda line, style: print(line)
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    return lambda line, style: console.print(line, style=style or None)


def _report(diagnosis: Diagnosis, print_line: PrintLine) -> None:
    rows = [*diagnosis.facts.items(), *(("tried", f"{place}: {why}") for place, why in diagnosis.tried)]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print_line(f"{name:{width}}  {value}", "")
    for finding in diagnosis.findings:
        print_line(f"\n{finding.severity}: {finding.fact}", STYLES[finding.severity])
        print_line(f"    {finding.remedy}", "")
    for name, values in diagnosis.differences.items():
        print_line(f"\n{name} differs:", "bold")
        for value, ranks in values.items():
            print_line(f"    {diagnosis.who(ranks)}: {value or '(not set)'}", "")
    if size := len(diagnosis.hosts):
        places = ", ".join(f"{diagnosis.hosts.count(host)} on {host}" for host in dict.fromkeys(diagnosis.hosts))
        print_line(f"\n{size} rank{'s' * (size > 1)} ({places}) verified a sum in {diagnosis.took_s:.1f} s.", "")
    errors = len(diagnosis.errors)
    if not diagnosis.works:
        verdict = f"It does not work: {errors} error{'s' * (errors != 1)} above."
    elif diagnosis.differences:
        verdict = f"It works. The ranks differ in {', '.join(diagnosis.differences)}, see above."
    else:
        verdict = "It works."
    print_line(verdict, "bold green" if diagnosis.works else "bold red")
