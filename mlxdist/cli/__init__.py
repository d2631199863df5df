"""The command ``mlxdist``: one file for each of its subcommands."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from mlxdist.cli import bench, doctor, launch
from mlxdist.errors import Error

# Each has HELP, add_arguments(parser) and run(arguments), which returns the exit status.
COMMANDS = {"launch": launch, "doctor": doctor, "bench": bench}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the subcommand that ``arguments`` (``sys.argv`` by default) name; the exit status."""
    parser = argparse.ArgumentParser(
        "mlxdist",
        description="Add arrays across processes, on any MPI.",
        epilog="python -m mlxdist script.py, or -m module, runs an unchanged MLX program.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
    chosen = parser.parse_args(arguments)
    try:
        return int(COMMANDS[chosen.command].run(chosen))
    except Error as error:
        print(f"mlxdist {chosen.command}: {error}", file=sys.stderr)
        return 1
