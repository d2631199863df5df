"""Compare mlxdist with MPI called from C and with other libraries, inside a host and between hosts.

    mlxdist bench -n 2
    mlxdist bench --hosts node1,node2:2
    mpirun -np 2 mlxdist bench      on the ranks of any launcher

All backends run in the same processes and take turns. Each figure is the median over rounds of the slowest rank. The
input is rewritten before each call, outside the measured time.

"raw C" is MPI's own function in a loop of C on the same libmpi, initialized with MPI_THREAD_MULTIPLE, as mlxdist does
(in a program that calls MPI_Init, some libraries are faster for short messages). Sums of 16-bit floats, which MPI does
not have, are a user-defined operation there. "shared" stands for arrays of mlxdist.empty().

On one host, times are held against memory: what the operation would take if each byte went through memory once, at the
speed of the best copy by all ranks at the same time. all_sum of N bytes on p ranks that together copy B bytes/s, read
and written, cannot exceed N / t = B / (2 p), except by what stays in caches: that is why a share may be above 100 %.

Between hosts, they are held against the wire: the rate of plain TCP streams from each host to the next, all at the same
time, before the cases; the slowest counts. The least time is that of the bytes that a host has to send or to receive,
whichever are more. "sent" is what the network interface of a host has sent, beside the least that it has to, for the
host where that is most: 1.00 to 1.08 with the headers and acknowledgements of TCP.
"""

from mlxdist.cli.bench.command import add_arguments, run

__all__ = ["HELP", "add_arguments", "run"]

HELP = "compare mlxdist with raw MPI and other libraries, inside a host and between hosts"
