"""``python -m mlxdist`` is the command ``mlxdist``, or runs a program that is not named like a subcommand."""

import sys

from mlxdist.cli import COMMANDS, main, run

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-m", _, *_] as arguments:
            status = run.run_program(arguments)
        case [name, *_] as arguments if name not in COMMANDS and not name.startswith("-"):
            status = run.run_program(arguments)
        case _:
            status = main()
    sys.exit(status)
