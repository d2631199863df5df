"""Compare mlxdist with MPI called from C and with other libraries, on the ranks of a launcher.

    mpirun -np 2 mlxdist bench

All backends run in the same processes and take turns. Each figure is the median over rounds of the slowest rank. The
input is rewritten before each call, outside the measured time.

"raw C" is MPI's own function in a loop of C on the same libmpi, initialized with MPI_THREAD_MULTIPLE, as mlxdist does
(in a program that calls MPI_Init, some libraries are faster for short messages). Sums of 16-bit floats, which MPI does
not have, are a user-defined operation there. "shared" stands for arrays of mlxdist.empty().

The memory bound is what the operation would take if each byte went through memory once, at the speed of the best copy
by all ranks at the same time: all_sum of N bytes on p ranks that together copy B bytes/s, read and written, cannot
exceed N / t = B / (2 p), except by what stays in caches: that is why a share may be above 100 %.
"""

from mlxdist.cli.bench.command import add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]

HELP = "compare mlxdist with raw MPI and other libraries; run it under mpirun"
