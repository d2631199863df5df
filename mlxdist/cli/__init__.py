"""The command ``mlxdist``; each of its subcommands is a package."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import NoReturn

from mlxdist.cli import bench, doctor, launch
from mlxdist.errors import Error

# Each has HELP, add_arguments(parser) and run(arguments), which returns the exit status.
COMMANDS = {"launch": launch, "doctor": doctor, "bench": bench}


class _Parser(argparse.ArgumentParser):
    """Reports a wrong argument in one line, without the usage, which may be much longer."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``arguments`` (``sys.argv`` by default) name; the exit status."""
    parser = _Parser(
        "mlxdist",
        description="Sum, gather and send arrays between processes, on any MPI.",
        epilog="python -m mlxdist script.py, or -m module, runs an unchanged MLX or JAX program.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    for name, package in COMMANDS.items():
        command = commands.add_parser(name, help=package.HELP, description=package.__doc__)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        package.add_arguments(command)
    parsed = parser.parse_args(arguments)
    if not parsed.command:
        parser.print_help(sys.stderr)
        return 2
    try:
        return int(COMMANDS[parsed.command].run(parsed))
    except Error as error:
        print(f"mlxdist {parsed.command}: {error}", file=sys.stderr)
        return 1
