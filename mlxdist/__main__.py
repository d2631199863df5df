"""``python -m mlxdist`` is the command ``mlxdist``, or runs a program: the name of a subcommand is never a script's."""

import sys

from mlxdist.cli import COMMANDS, main, run

if __name__ == "__main__":
    match sys.argv[1:]:
        case ["-m", _, *_] as arguments:
            status = run.main(arguments)
        case [name, *_] as arguments if name not in COMMANDS and not name.startswith("-"):
            status = run.main(arguments)
        case _:
            status = main()
    sys.exit(status)
