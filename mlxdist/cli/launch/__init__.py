"""Start ranks, here or on several hosts, with the mpirun that belongs to the libmpi that they will load.

    mlxdist launch -n 2 train.py --epochs 3
    mlxdist launch -n 8 --hosts node1:4,node2:4 train.py
    mlxdist launch -n 2 -m package.module arguments
    mlxdist launch -n 2 -m mlxdist mlx_program.py       an unchanged MLX or JAX program

A program that is neither a .py file nor a directory is run as it is. Rank 0 reads stdin. Each line of output has its
rank in front.

The exit status is that of the rank that left first, among those that failed, as in a shell (128 + signal), or 124 after
a timeout; the last line on stderr says which rank it was. The other ranks then have 3 s to finish.
"""

from mlxdist.cli.launch.command import add_arguments, add_rank_arguments, run, start_ranks

__all__ = ["HELP", "add_arguments", "add_rank_arguments", "run", "start_ranks"]

HELP = "start ranks, here or on several hosts, with the MPI that they will load"
