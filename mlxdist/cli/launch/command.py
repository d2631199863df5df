"""The options of ``mlxdist launch``, and the job that they describe."""

from __future__ import annotations

import argparse
import dataclasses
import math
import os
import shlex
import sys
from pathlib import Path

from mlxdist import config
from mlxdist.cli.launch import hosts, mpirun, networks, rank, ssh
from mlxdist.cli.launch.job import Job
from mlxdist.cli.launch.mpirun import JobSpec, Mpirun
from mlxdist.cli.launch.output import Output, open_standard_streams
from mlxdist.cli.launch.reports import Reports
from mlxdist.errors import Error, LoadError
from mlxdist.mpi import launchers, search


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not a variable: write NAME=VALUE")
    return name, value


def _size(text: str) -> int:
    if not hosts.is_number_of_ranks(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of ranks: give 1 to {hosts.MOST_RANKS}")
    return int(text)


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} cannot be split ({error}): quote it as in a shell") from None


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a timeout: give seconds, 0 for no timeout")
    return seconds


def add_rank_arguments(parser: argparse._ActionsContainer) -> None:
    """Add the options that say where ranks are started, and with what."""
    parser.add_argument(
        "-n", "-np", type=_size, metavar="N", help="number of ranks; default: one for each slot of the hosts, else 1"
    )
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--hosts", type=hosts.from_text, metavar="a,b:2", help="hosts and their slots")
    where.add_argument(
        "--hostfile", type=hosts.from_file, metavar="FILE", help="lines 'a slots=2' or 'a:2', or mlx.launch's JSON"
    )
    for option, kind, metavar, words in (
        ("--env", _variable, "K=V", "set an environment variable for every rank"),
        ("--mpi-arg", _words, "X", "options for mpirun itself: --mpi-arg='--mca btl_tcp_links 4'"),
    ):
        parser.add_argument(option, type=kind, action="append", default=[], metavar=metavar, help=words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``mlxdist launch``."""
    parser.usage = "mlxdist launch [options] PROGRAM|-m MODULE [arguments]"
    parser.epilog = (
        f"mpirun is the one beside the libmpi that {config.LIBMPI.name} names, else that of Python's environment,\n"
        f"else that on PATH. {', '.join(config.FOR_ALL_RANKS)} are passed to all ranks. With {config.ABORT.name}=0\n"
        "the other ranks keep running when one has failed, if mpirun lets them."
    )
    add_rank_arguments(parser)
    parser.add_argument("--cwd", metavar="DIR", help="working directory of every rank; default: this one")
    parser.add_argument("--timeout", type=_seconds, default=0, metavar="S", help="stop all ranks after S seconds")
    parser.add_argument("--no-prefix", action="store_true", help="do not put the rank in front of each line")
    parser.add_argument("--dry-run", action="store_true", help="only print the command that would be run")
    rest = argparse.REMAINDER
    parser.add_argument("-m", dest="module", nargs=rest, metavar="MODULE", help="run a module, as python -m does")
    parser.add_argument("program", nargs=rest, metavar="PROGRAM", help="the program and its arguments")


def run(arguments: argparse.Namespace) -> int:
    """Start the ranks and wait for them; the exit status is that of the first that failed."""
    open_standard_streams()
    program = _program(arguments)
    if not program:
        print("mlxdist launch: no program is named: mlxdist launch -n 2 train.py", file=sys.stderr)
        return 2
    spec = _spec(program, arguments, arguments.cwd)
    if arguments.dry_run:
        print(shlex.join(_command(_find_launcher(spec), spec)[0]))
        return 0
    return _start(spec, Output(not arguments.no_prefix), arguments.timeout)


def start_ranks(program: list[str], arguments: argparse.Namespace) -> int:
    """Start ``program`` as the options of ``add_rank_arguments`` say, and show its output as it is; the exit status."""
    open_standard_streams()
    return _start(_spec(program, arguments), Output(prefixed=False))


def _spec(program: list[str], arguments: argparse.Namespace, cwd: str | None = None) -> JobSpec:
    named = arguments.hosts or arguments.hostfile or []
    size = arguments.n or sum(host.slots or 1 for host in named) or 1
    return JobSpec(
        size,
        program,
        hosts=hosts.spread(named, size),
        variables=dict(arguments.env),
        inherited=config.for_all_ranks(os.environ),
        cwd=cwd,
        extra=[word for words in arguments.mpi_arg for word in words],
    )


def _start(spec: JobSpec, output: Output, timeout_s: float = 0) -> int:
    _check_outside_ranks()
    launcher = _find_launcher(spec)
    _check_hosts(spec, launcher)
    if spec.cwd and not launcher:
        os.chdir(spec.cwd)
    line, remarks = _command(launcher, _with_reports(spec))
    if remarks:
        print(f"mlxdist launch: {', '.join(remarks)}", file=sys.stderr)
    reports = Reports(spec.size, [host for host, _ in spec.hosts if not ssh.is_local(host)], output)
    environ = {**os.environ, config.LAUNCH.name: reports.contact}
    return Job(spec.size, reports, output).run(line, environ, timeout_s)


def _program(arguments: argparse.Namespace) -> list[str]:
    """The command line of each rank."""
    if arguments.module is not None:
        return [sys.executable, "-m", *arguments.module] if arguments.module else []
    program = arguments.program[1:] if arguments.program[:1] == ["--"] else arguments.program
    is_python = program and (program[0].endswith(".py") or Path(program[0]).is_dir())
    return [sys.executable, *program] if is_python else list(program)


def _find_launcher(spec: JobSpec) -> Mpirun | None:
    """The mpirun to use; None where there is no MPI, and the job is a single rank, which needs none."""
    try:
        return mpirun.find()
    except LoadError:
        if spec.size > 1 or spec.hosts or config.LIBMPI.get():
            raise
        return None


def _command(launcher: Mpirun | None, spec: JobSpec) -> tuple[list[str], list[str]]:
    """The command line, and remarks on it for the user."""
    if launcher:
        line, added = mpirun.command(launcher, spec)
        return line, [f"{launcher.path} {option}" for option in added[:1]] + added[1:]
    variables = [f"{name}={value}" for name, value in spec.variables.items()]
    return ["env", *variables, *spec.program], ["no MPI was found, so the rank runs alone"]


def _with_reports(spec: JobSpec) -> JobSpec:
    """The same job with ranks that report to this process."""
    rank_variables = ",".join(launchers.RANK_VARIABLES.values())
    program = [sys.executable, "-IS", rank.__file__, config.LAUNCH.name, config.LAUNCH_PIPE.name, rank_variables]
    inherited = [*spec.inherited, config.LAUNCH.name]
    words = [rank.quoted(word) for word in spec.program]
    return dataclasses.replace(spec, program=[*program, *words], inherited=inherited)


def _check_outside_ranks() -> None:
    outer = launchers.detect(os.environ, launchers.ancestors(os.environ))
    # The shell that srun starts for a single task is a place to run mpirun.
    if outer and not (outer.size == 1 and outer.kind.startswith("slurm")):
        raise Error(
            f"this process is itself a rank of {outer.name} ({outer.variable}={outer.size}): start the ranks only "
            "once, without another launcher"
        )


def _check_hosts(spec: JobSpec, launcher: Mpirun | None) -> None:
    names = [host for host, _ in spec.hosts] or ["localhost"]
    needed = [path for path in (launcher and launcher.path, spec.cwd) if path]
    # One connection to each host does both.
    answers = ssh.ask(names, needed, networks.question(names) if len(names) > 1 else "")
    if failures := ssh.failures(answers):
        raise Error(f"ranks cannot be started on{search.listed(failures.items())}")
    if launcher and not networks.is_told(launcher.library, {**os.environ, **spec.variables}, spec.extra):
        found = [networks.answer(name, answer.printed) for name, answer in answers.items()]
        if warning := networks.warning(found, launcher.library):
            print(f"mlxdist launch: {': '.join(warning)}", file=sys.stderr)
