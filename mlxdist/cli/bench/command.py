"""The options of ``mlxdist bench``, its progress and its output."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist import config
from mlxdist.cli import launch
from mlxdist.cli.bench import backends, baselines, cases, hosts, measure, report, wire
from mlxdist.cli.bench.backends import Backend
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.report import Result
from mlxdist.cli.bench.wire import Wire
from mlxdist.cli.objects import all_gather_object
from mlxdist.mpi.launchers import LibraryInfo

ON_THEIR_WAY_S = 0.1  # the stdout and the stderr of a rank, until a launcher has passed them on
IDLE = 0.5  # the load average of a machine that nobody uses
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def _nbytes(text: str) -> int:
    """64M is 64 MiB."""
    found = re.fullmatch(r"(\d+) ?([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: give one like 4, 64K or 256M")
    return int(found[1]) * UNITS[found[2].upper()]


def _number_of(what: str) -> Callable[[str], int]:
    def number(text: str) -> int:
        if not text.isdecimal() or int(text) < 1:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of {what}: give 1 or more")
        return int(text)

    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mlxdist bench``."""
    several = "default: both all_sum; between hosts, all but that in place"
    parser.add_argument("--op", nargs="+", choices=cases.OPERATIONS, help=several)
    parser.add_argument("--dtype", nargs="+", choices=cases.DTYPES, default=["float32"], help="default: float32")
    parser.add_argument("--min", type=_nbytes, metavar="SIZE", help="shortest message; default: 4, between hosts 1K")
    parser.add_argument("--max", type=_nbytes, metavar="SIZE", help="longest message; default: 64M, between hosts 16M")
    for option, default, metavar, words in (
        ("--rounds", 11, "N", "turns of each backend"),
        ("--seconds", 45, "S", "fewer rounds if they would take longer"),
    ):
        kind = _number_of(option[2:])
        parser.add_argument(option, type=kind, default=default, metavar=metavar, help=f"{words}; default: {default}")
    parser.add_argument("--check", action="store_true", help="compare every result with NumPy before measuring")
    for option, words in (("--gloo", "PyTorch's gloo"), ("--mlx", "mlxdist on mx.array, and MLX's ring backend")):
        parser.add_argument(
            option, action=argparse.BooleanOptionalAction, help=f"add {words}; default: only between hosts"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="rank 0 writes all figures to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE.png", help="plot the results against size; needs matplotlib")
    launch.add_rank_arguments(parser.add_argument_group("to start the ranks, without another launcher"))


@dataclass(frozen=True)
class Defaults:
    """What is measured if no option says otherwise."""

    op: tuple[str, ...]
    min: int
    max: int


ONE_HOST = Defaults(("all_sum", "all_sum_in_place"), 4, 64 << 20)
# In place differs only inside a host. Shorter messages take as long as these.
SEVERAL_HOSTS = Defaults(("all_sum", "all_gather", "sum_scatter", "broadcast"), 1 << 10, 16 << 20)


def _set_defaults(arguments: argparse.Namespace, several_hosts: bool) -> None:
    for name, value in vars(SEVERAL_HOSTS if several_hosts else ONE_HOST).items():
        if getattr(arguments, name) is None:
            setattr(arguments, name, value)


def run(arguments: argparse.Namespace) -> int:
    """Measure and report; 1 if --check found a wrong result, 2 if nothing can be measured."""
    named = arguments.hosts or arguments.hostfile
    if (arguments.n or named) and not config.LAUNCH_PIPE.get():
        _set_defaults(arguments, several_hosts=len(named or []) > 1)
        # Before anything is started; but another host may have other folders, so rank 0 looks at those itself.
        if refusal := _refusal(arguments, 1 if named else 0, arguments.n or 2):
            print(f"mlxdist bench: {refusal}", file=sys.stderr)
            return 2
        return launch.start_ranks([sys.executable, "-m", "mlxdist", *sys.argv[1:]], arguments)
    try:
        group, load = dist.init(), os.getloadavg()[0]
    except ValueError as error:  # of an environment variable
        print(f"mlxdist bench: {error}", file=sys.stderr)
        return 2
    rank, size = group.rank(), group.size()
    _set_defaults(arguments, several_hosts=len(hosts.find().names) > 1)
    refusal = _refusal(arguments, rank, size)
    first = int(dist.all_min(np.int64(rank if refusal else size)))
    if first < size:
        if rank == first:
            print(f"mlxdist bench: {refusal}", file=sys.stderr)
        return 2
    series = [
        cases.cases(name, np.dtype(dtype), arguments.min, arguments.max, size)
        for name in arguments.op
        for dtype in arguments.dtype
    ]
    network, remarks = wire.between_hosts(), _remarks(load)
    if rank == 0:
        _print_heading(network, remarks)
    results = _measure(series, arguments, network)
    if results is None:
        return 1
    if rank == 0:
        _print_notes(results, arguments.check)
        _write(results, arguments, network, remarks)
    return 0


def _measure(series: list[list[Case]], arguments: argparse.Namespace, network: Wire | None) -> list[Result] | None:
    """Measure the cases and print a table for each series; None if --check found a wrong result."""
    rank, chosen = dist.init().rank(), _chosen(arguments, network)
    every = measure.fitting([*chain(*series)], arguments.seconds, len(chosen), network)
    limits = measure.Limits(every, arguments.seconds, network)
    results: list[Result] = []
    with _progress(len(every), rank == 0) as (show, beside):
        for members in series:
            done = len(results)
            for case in filter(every.__contains__, members):
                show(case)
                limit_s = limits.next_s(case)
                result, wrong = measure.run_case(case, chosen, arguments.rounds, limit_s, arguments.check, network)
                if wrong:
                    if rank == 0:
                        print("\n".join(f"mlxdist bench: {line}" for line in wrong), file=sys.stderr)
                    return None
                results.append(result)
            if rank == 0 and results[done:]:
                with beside():
                    report.print_table(report.title(members[0]), report.table(results[done:]))
    if rank == 0 and len(every) < sum(map(len, series)):
        longest = report.format_bytes(max(case.nbytes for case in every))
        print(f"left out: longer messages than {longest}, for which --seconds {arguments.seconds} are too short")
    return results


def _chosen(arguments: argparse.Namespace, network: Wire | None) -> dict[str, Backend]:
    chosen = backends.BUILT_IN | baselines.DEFAULT
    for option, optional in baselines.OPTIONAL.items():
        wanted = getattr(arguments, option)
        chosen |= optional if wanted or (wanted is None and network) else {}
    return {name: chosen[name] for name in chosen if not network or name in baselines.BETWEEN_HOSTS}


def _refusal(arguments: argparse.Namespace, rank: int, size: int) -> str:
    """Why this cannot be measured; empty if it can."""
    if size == 1:
        return "one rank has no peers: give -n 2, or --hosts a,b, or start it with mpirun -np 2 mlxdist bench"
    if not cases.lengths(arguments.min, arguments.max):
        return f"there is no power of 4 from --min {arguments.min} to --max {arguments.max}: choose a wider range"
    written = {"--json": arguments.json, "--plot": arguments.plot} if rank == 0 else {}
    for option, path in written.items():
        if path and (path.is_dir() or not path.parent.is_dir()):
            return f"{option} {path} cannot be written: give a file in a folder that exists"
    missing = {"bfloat16": "ml_dtypes"} if "bfloat16" in arguments.dtype else {}
    missing |= {"--plot": "matplotlib"} if arguments.plot else {}
    for wanted, package in missing.items():
        try:
            __import__(package)
        except ImportError:
            return f"{wanted} needs {package}: pip install {package}"
    if arguments.plot and not report.can_plot(arguments.plot):
        return f"--plot {arguments.plot} has no known format: give a name that ends in .png, .pdf or .svg"
    return ""


@contextlib.contextmanager
def _progress(total: int, shown: bool) -> Iterator[tuple[Callable[[Case], None], Callable[[], Any]]]:
    """A function to call before each case, which shows it on stderr, and a context in which others may print."""
    if not shown:
        yield lambda case: None, contextlib.nullcontext
        return
    try:
        from tqdm import tqdm
    except ImportError:
        number = iter(range(1, total + 1))

        def show(case: Case) -> None:
            text = f"{report.title(case)} {report.format_bytes(case.nbytes)}"
            print(f"bench {next(number)}/{total}: {text}", file=sys.stderr, flush=True)

        yield show, contextlib.nullcontext
        return
    # not more often, since mpirun passes on each change
    with tqdm(total=total, desc="bench", file=sys.stderr, leave=False, mininterval=1) as bar:

        def show(case: Case) -> None:
            bar.update()
            bar.set_description(f"{report.title(case)} {report.format_bytes(case.nbytes)}", refresh=False)

        @contextlib.contextmanager
        def beside() -> Iterator[None]:
            with tqdm.external_write_mode():
                time.sleep(ON_THEIR_WAY_S)
                yield
                time.sleep(ON_THEIR_WAY_S)

        yield show, beside


def _heading() -> str:
    info, found = dist.info(), hosts.find()
    where = f" on {found}" if len(found.names) > 1 else ""
    return f"{LibraryInfo(info.libmpi, info.family, info.version).title}, {info.size} ranks{where}"


def _remarks(mine: float) -> list[str]:
    """What disturbs the measurement on any host; every rank must call it."""
    found = hosts.find()
    loads = all_gather_object([mine, os.cpu_count() or 1])
    busy, crowded = [], []
    for name, ranks, leader in zip(found.names, found.ranks, found.leaders, strict=True):
        load, cores = loads[leader]
        # a rank that loses its core for a moment delays all the others
        if load > IDLE and load + ranks > cores:
            busy.append(f"{load:.1f} on {cores} cores of {name}")
        if ranks > cores:
            crowded.append(f"{ranks} on {cores} of {name}")
    remarks = {"busy: the load average at the start was": busy, "busy: there are more ranks than cores:": crowded}
    return [f"{what} {', '.join(where)}" for what, where in remarks.items() if where]


def _print_heading(network: Wire | None, remarks: list[str]) -> None:
    info = dist.info()
    print(f"{_heading()}, {info.threads}, kernels: {info.kernels}, shared memory: {info.shared_memory}")
    if network and network.why:
        print(f"wire: not measured, {network.why}: open the ports between the hosts")
    elif network:
        slowest, to = min(zip(network.rates, network.hosts.names, strict=True))
        fastest = max(network.rates) / 1e6
        print(f"wire: {slowest / 1e6:.4g} MB/s each way, to {to}; the fastest TCP stream had {fastest:.4g} MB/s")
    for line in remarks:
        print(line)
    print(EXPLANATION[bool(network)], flush=True)


EXPLANATION = (
    "us: a call on the slowest rank. memory: the share of memory's speed that it reaches.\n",
    "us: a call on the slowest rank. wire: the share of the wire's rate that it reaches with the least bytes that\n"
    "have to cross. sent: the bytes that a host sent, beside the least that it has to, where that is most.\n",
)


def _print_notes(results: list[Result], checked: bool) -> None:
    elsewhere = {name for result in results for name in result.sent if result.is_sent_elsewhere(name)}
    if elsewhere:
        print(f"sent: {', '.join(sorted(elsewhere))}: by another network than the wire that was measured")
    for reason in sorted({f"{name}: {why}" for result in results for name, why in result.skipped.items()}):
        print(f"skipped: {reason}")
    if checked:
        print(f"checked: {len(results)} cases, every element of every backend equals NumPy's")


def _write(results: list[Result], arguments: argparse.Namespace, network: Wire | None, remarks: list[str]) -> None:
    if arguments.json:
        info, found = dist.info(), hosts.find()
        facts = {name: getattr(info, name) for name in ("version", "libmpi", "threads", "kernels", "size")}
        facts |= {"hosts": [*zip(found.names, found.ranks, strict=True)], "remarks": remarks}
        facts |= {"wire_bytes_per_s": list(network.rates) if network else []}
        whole = {"mlxdist": dist.__version__, **facts, "results": [r.as_json() for r in results]}
        arguments.json.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.plot:
        report.plot(results, "\n".join([_heading(), *remarks]), arguments.plot)
