"""The options of ``mlxdist doctor``, and where its report goes."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

from mlxdist.cli.doctor import report
from mlxdist.cli.doctor.diagnosis import Diagnosis, diagnose
from mlxdist.cli.launch import hosts
from mlxdist.errors import Error

# A launcher may end the job as soon as a rank has failed: rank 0 gets some time to print its report first.
REPORT_S = 3.0
REPORT = "mlxdist-report.txt"
PrintLine = Callable[[str, str], None]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mlxdist doctor``."""
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", type=hosts.from_text, default=[], metavar="a,b", help="start a rank on each of these")
    where.add_argument(
        "--hostfile", type=hosts.from_file, dest="hosts", metavar="FILE", help="the same, from a file as for launch"
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    parser.add_argument(
        "--report",
        nargs="?",
        const=REPORT,
        metavar="FILE",
        help=f"also write a report to send, without secrets and names of users and hosts, to FILE ({REPORT})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Diagnose and report; 0 if ranks work, else 1."""
    named = [host.name for host in arguments.hosts]
    try:
        diagnosis, environment = diagnose(named)
    except Exception as error:
        if arguments.report:
            try:
                _write(arguments.report, report.of_failure(error, named))
            except Error as why:
                print(f"mlxdist doctor: {why}", file=sys.stderr)
        raise
    if environment.launcher and environment.launcher.rank:
        return _report_other_rank(diagnosis)
    if arguments.json:
        print(json.dumps({"works": diagnosis.works, **dataclasses.asdict(diagnosis)}, indent=1))
    else:
        print_line = _line_printer()
        for line, style in report.lines(diagnosis):
            print_line(line, style)
    if arguments.report:
        _write(arguments.report, report.to_send(diagnosis, environment))
    return int(not diagnosis.works)


def _write(path: str, text: str) -> None:
    try:
        Path(path).write_text(text, encoding="utf-8", errors="backslashreplace")  # of paths that are no text
    except OSError as error:
        raise Error(f"the report cannot be written to {path}, {error.strerror}: give --report another path") from error
    print(f"mlxdist doctor: the report is in {path}: read it before you send it", file=sys.stderr)


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
