"""Start ranks, here or on hosts, with the mpirun that belongs to the libmpi that they will load.

    mlxdist launch -n 2 train.py --epochs 3
    mlxdist launch -n 8 --hosts node1:4,node2:4 train.py
    mlxdist launch -n 2 -m package.module arguments
    mlxdist launch -n 2 -m mlxdist mlx_program.py       an unchanged MLX program

A program that is no .py file and no directory is run as it is. Rank 0 reads stdin. Before each line that a rank prints
stands its number.

The exit status is that of the first rank that failed, as a shell has it (128 + signal), 124 after the time limit; the
last line on stderr tells which. The other ranks have 3 s then to end by themselves.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from mlxdist import config
from mlxdist.cli.launch import hosts, mpirun, rank, ssh
from mlxdist.cli.launch.job import Job
from mlxdist.cli.launch.mpirun import Mpirun, Wish
from mlxdist.cli.launch.output import Output
from mlxdist.cli.launch.reports import Reports
from mlxdist.errors import Error, LoadError
from mlxdist.mpi import launchers, search

HELP = "start ranks here or on hosts, with the MPI that they will load"


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def _size(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give at least 1")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``mlxdist launch``."""
    parser.usage = "mlxdist launch [options] PROGRAM|-m MODULE [arguments]"
    parser.epilog = (
        f"mpirun is the one beside the libmpi that {config.LIBMPI.name} names, else that of Python's environment, else "
        f"that on PATH. {', '.join(config.FOR_ALL_RANKS)} reach all ranks. With {config.ABORT.name}=0 the others go on "
        "when a rank has failed, where mpirun lets them."
    )
    parser.add_argument(
        "-n", "-np", type=_size, metavar="N", help="ranks in all; default: one for each slot of the hosts, else 1"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", type=hosts.from_text, metavar="a,b:2", help="hosts, and their slots")
    where.add_argument(
        "--hostfile", type=hosts.from_file, metavar="FILE", help="lines 'a slots=2' or 'a:2', or mlx.launch's JSON"
    )
    for option, kind, metavar, words in (
        ("--env", _variable, "K=V", "a variable for every rank"),
        ("--mpi-arg", shlex.split, "X", "for mpirun itself: --mpi-arg='--mca btl_tcp_links 4'"),
    ):
        parser.add_argument(option, type=kind, action="append", default=[], metavar=metavar, help=words)
    parser.add_argument("--cwd", metavar="DIR", help="working directory of every rank; default: this one")
    parser.add_argument("--timeout", type=float, default=0, metavar="S", help="end all ranks after S seconds")
    parser.add_argument("--no-prefix", action="store_true", help="no number before the lines")
    parser.add_argument("--dry-run", action="store_true", help="only print the command that would be run")
    rest = argparse.REMAINDER
    parser.add_argument("-m", dest="module", nargs=rest, metavar="MODULE", help="run a module, as python -m does")
    parser.add_argument("program", nargs=rest, metavar="PROGRAM", help="the program and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Start the ranks and wait for them; the exit status is that of the first that failed."""
    program = _program(arguments)
    if not program:
        print("mlxdist launch: name a program: mlxdist launch -n 2 train.py", file=sys.stderr)
        return 2
    named = arguments.hosts or arguments.hostfile or []
    size = arguments.n or sum(host.slots or 1 for host in named) or 1
    wish = Wish(
        size,
        program,
        hosts=hosts.spread(named, size),
        variables=dict(arguments.env),
        inherited=config.for_all_ranks(os.environ),
        cwd=arguments.cwd,
        extra=[word for words in arguments.mpi_arg for word in words],
    )
    launcher = _launcher(wish)
    if arguments.dry_run:
        print(shlex.join(_command(launcher, wish)[0]))
        return 0
    _refuse_in_a_rank()
    _refuse_hosts(wish, launcher)
    line, remarks = _command(launcher, _reporting(wish))
    if remarks:
        print(f"mlxdist launch: {', '.join(remarks)}", file=sys.stderr)
    reports = Reports([host for host, _ in wish.hosts])
    environ = {**os.environ, config.LAUNCH.name: reports.place}
    return Job(size, reports, Output(not arguments.no_prefix)).run(line, environ, arguments.timeout)


def _program(arguments: argparse.Namespace) -> list[str]:
    """The command line of each rank."""
    if arguments.module is not None:
        return [sys.executable, "-m", *arguments.module] if arguments.module else []
    program = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    is_python = program and (program[0].endswith(".py") or Path(program[0]).is_dir())
    return [sys.executable, *program] if is_python else list(program)


def _launcher(wish: Wish) -> Mpirun | None:
    """None where there is no MPI, for a rank that can do without."""
    try:
        return mpirun.find()
    except LoadError:
        if wish.size > 1 or wish.hosts or config.LIBMPI.get():
            raise
        return None


def _command(launcher: Mpirun | None, wish: Wish) -> tuple[list[str], list[str]]:
    """The command line, and what has to be said about it."""
    if launcher:
        line, unasked = mpirun.command(launcher, wish)
        return line, [f"{launcher.path} {option}" for option in unasked[:1]] + unasked[1:]
    if wish.cwd:
        os.chdir(wish.cwd)
    variables = [f"{name}={value}" for name, value in wish.variables.items()]
    return ["env", *variables, *wish.program], ["there is no MPI here, so the rank runs alone"]


def _reporting(wish: Wish) -> Wish:
    """The same wish, with programs that report to this process."""
    variables = ",".join(launchers.RANK_VARIABLES.values())
    reporting = [sys.executable, "-IS", rank.__file__, config.LAUNCH.name, config.LAUNCH_PIPE.name, variables]
    inherited = [*wish.inherited, config.LAUNCH.name]
    return dataclasses.replace(wish, program=[*reporting, *wish.program], inherited=inherited)


def _refuse_in_a_rank() -> None:
    outer = launchers.detect(os.environ, launchers.ancestors())
    # In a shell that srun started for one task mpirun does its work.
    if outer and not (outer.size == 1 and outer.kind.startswith("slurm")):
        raise Error(
            f"this process is itself a rank of {outer.name} ({outer.variable}={outer.size}): start the ranks "
            "from outside, once, not from each rank"
        )


def unusable(names: Sequence[str], *needed: str | None) -> dict[str, str]:
    """Why no rank can be started on those of the hosts where none can, and what to do; all must have what is needed."""
    return ssh.failures(names, [path for path in (sys.executable, rank.__file__, *needed) if path])


def _refuse_hosts(wish: Wish, launcher: Mpirun | None) -> None:
    names = [host for host, _ in wish.hosts] or ["localhost"]
    failures = unusable(names, launcher.path if launcher else None, wish.cwd)
    if failures:
        raise Error(f"ranks cannot be started on{search.listed(failures.items())}")
