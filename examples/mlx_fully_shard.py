"""Train an autoencoder of which each rank holds only a shard, with MLX's fully_shard (MLX 0.32 or later).

    python examples/mlx_fully_shard.py                   one process
    mpirun -np 2 python examples/mlx_fully_shard.py      on two ranks; 4 and 8 work too

Each layer is gathered when it is needed (all_gather), and each rank gets its shard of the averaged gradients
(sum_scatter, which MLX's own MPI backend does not have). Weights and optimizer state are sharded over the ranks. All
ranks print the same loss, which does not depend on the number of ranks.
"""

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.nn.layers.distributed import fully_shard
from mlx.utils import tree_flatten
from sklearn.datasets import load_digits

import mlxdist

BATCH = 120  # images in a batch, over all ranks: divides into equal shares for 1, 2, 4 and 8 ranks

mlxdist.install()
world = mx.distributed.init()
rank, size = world.rank(), world.size()

images = mx.array(load_digits().data.astype(np.float32) / 16)
mx.random.seed(0)  # every rank creates the whole model and keeps its shard
layers = [nn.Linear(64, 128), nn.Tanh(), nn.Linear(128, 8), nn.Linear(8, 128), nn.Tanh(), nn.Linear(128, 64)]
model = nn.Sequential(*map(fully_shard, layers))
optimizer = optim.Adam(0.003)


def loss_of(images: mx.array) -> mx.array:
    return nn.losses.mse_loss(model(images), images)


for epoch in range(10):
    order = np.random.default_rng(epoch).permutation(len(images))  # the same on every rank
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = mx.array(order[start + rank : start + BATCH : size])
        _, gradients = nn.value_and_grad(model, loss_of)(images[mine])  # of this rank's shard, already averaged
        optimizer.update(model, gradients)
        mx.eval(model.state, optimizer.state)

held = sum(weights.size for _, weights in tree_flatten(model.parameters()))
print(f"rank {rank} of {size}: loss {loss_of(images).item():.8f}, {held} parameters held", flush=True)
