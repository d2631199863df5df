"""``python -m mlxdist`` is the command ``mlxdist``."""

import sys

from mlxdist.cli import main

if __name__ == "__main__":
    sys.exit(main())
