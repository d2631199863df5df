"""MLX: its own lazy operations over the groups of mlxdist, and ``mx.distributed`` made to run on it."""
