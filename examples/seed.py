"""The smallest MLX program: MLX's own calls, on any MPI, under mpirun or with plain python."""

import mlx.core as mx

import mlxdist

mlxdist.install()
world = mx.distributed.init()
x = mx.distributed.all_sum(mx.ones(10))
print(world.rank(), x)
