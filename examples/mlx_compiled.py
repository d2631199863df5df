"""Data-parallel training with MLX and the whole step compiled: loss, gradients, their mean over all ranks, update.

    python examples/mlx_compiled.py                   one process
    mpirun -np 2 python examples/mlx_compiled.py      on two ranks

These are MLX's own calls, unchanged. All ranks print the same loss, which does not depend on the number of ranks.
"""

import os
import tempfile
from functools import partial

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from sklearn.datasets import load_digits

import mlxdist

BATCH = 120  # images in a batch, over all ranks

mlxdist.install()
world = mx.distributed.init()
rank, size = world.rank(), world.size()
# On the CPU mx.compile writes its kernels below TMPDIR, and two ranks must not write the same file at the same time.
private = tempfile.TemporaryDirectory(prefix="mlx-")
os.environ["TMPDIR"] = private.name

images, labels = map(mx.array, load_digits(return_X_y=True))
images, labels = images.astype(mx.float32) / 16, labels.astype(mx.int32)
mx.random.seed(0)  # the same weights on every rank
model = nn.Sequential(nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 10))
optimizer = optim.SGD(0.3, momentum=0.5)


def loss_of_share(images: mx.array, labels: mx.array) -> mx.array:
    # not the mean over the share: shares may differ by one image
    return nn.losses.cross_entropy(model(images), labels, reduction="sum") / (BATCH / size)


@partial(mx.compile, inputs=[model.state, optimizer.state], outputs=[model.state, optimizer.state])
def step(images: mx.array, labels: mx.array) -> mx.array:
    loss, gradients = nn.value_and_grad(model, loss_of_share)(images, labels)
    optimizer.update(model, nn.average_gradients(gradients))
    return mx.distributed.all_sum(loss) / size


for epoch in range(10):
    order = np.random.default_rng(epoch).permutation(len(images))  # the same on every rank
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = mx.array(order[start + rank : start + BATCH : size])
        loss = step(images[mine], labels[mine])
        mx.eval(loss, model.state, optimizer.state)
    if rank == 0:
        print(f"epoch {epoch}: loss of the last batch {loss.item():.4f}")

loss = nn.losses.cross_entropy(model(images), labels, reduction="mean")
print(f"rank {rank} of {size}: loss {loss.item():.8f}", flush=True)
