"""Report what was found and chosen, what is wrong and the command that fixes it; then verify a sum across ranks.

    mlxdist doctor                     # 2 ranks here
    mlxdist doctor --hosts a,b         # a rank on each host
    mpirun -np 4 mlxdist doctor        # the ranks of that launcher
    mlxdist doctor --report            # the first, and a file to send when something fails

The exit status is 0 if the ranks work, else 1. Versions, paths and environment variables that differ between ranks are
listed with the ranks that have them.
"""

from mlxdist.cli.doctor.command import add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]

HELP = "report what is wrong, and the command that fixes it"
