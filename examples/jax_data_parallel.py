"""Data-parallel training with JAX: each rank holds the whole model and processes its share of every batch.

    python examples/jax_data_parallel.py                   one process
    mpirun -np 2 python examples/jax_data_parallel.py      on two ranks

A step is one compiled function, in which the ranks communicate. All ranks print the same loss, which does not depend on
the number of ranks.
"""

import jax
import jax.numpy as jnp
import numpy as np
from sklearn.datasets import load_digits

import mlxdist as dist

BATCH = 120  # images in a batch, over all ranks
RATE = 0.5

world = dist.init()
rank, size = world.rank(), world.size()
images, labels = load_digits(return_X_y=True)
images, targets = jnp.array(images / 16, jnp.float32), jax.nn.one_hot(labels, 10)


def loss_sum(weights: dict[str, jax.Array], images: jax.Array, targets: jax.Array) -> jax.Array:
    logits = jnp.tanh(images @ weights["first"]) @ weights["second"]
    return -(jax.nn.log_softmax(logits) * targets).sum()


@jax.jit
def updated(weights: dict[str, jax.Array], images: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    gradients = jax.grad(loss_sum)(weights, images, targets)
    gradients = jax.tree.map(lambda g: g / (BATCH / size), gradients)  # not / len(images): one may have one more
    return jax.tree.map(lambda w, g: w - RATE * g, weights, dist.average_gradients(gradients))


first, second = jax.random.split(jax.random.key(0))  # the same weights on every rank
weights = {"first": jax.random.normal(first, (64, 64)) / 8, "second": jax.random.normal(second, (64, 10)) / 8}

for epoch in range(10):
    order = np.random.default_rng(epoch).permutation(len(images))  # the same on every rank
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = order[start + rank : start + BATCH : size]
        weights = updated(weights, images[mine], targets[mine])

loss = loss_sum(weights, images, targets) / len(images)
print(f"rank {rank} of {size}: loss {loss:.8f}", flush=True)
