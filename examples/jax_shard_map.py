"""Training with JAX's own collectives: the batch is divided among the processes, and so are the weights.

    python examples/jax_shard_map.py                    one process
    mpirun -np 2 python examples/jax_shard_map.py       on two ranks

Each process holds its rows of every weight, gathers the whole weight when it needs it, and gets back its rows of the
summed gradient. JAX communicates within compiled functions; mlxdist is its MPI. All processes print the same loss,
which does not depend on their number.
"""

import mlxdist.jax  # before jax

import jax  # isort: skip
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from sklearn.datasets import load_digits

BATCH = 128  # images in a batch, over all processes
RATE = 0.5

mlxdist.jax.initialize()
rank, size = jax.process_index(), jax.process_count()
mesh = jax.make_mesh((size,), ("ranks",))
rows = NamedSharding(mesh, P("ranks"))  # of an array, so many for each process

images, labels = load_digits(return_X_y=True)
images, targets = (images / 16).astype(np.float32), np.eye(10, dtype=np.float32)[labels]


def loss_sum(weights: dict[str, jax.Array], images: jax.Array, targets: jax.Array) -> jax.Array:
    logits = jnp.tanh(images @ weights["first"]) @ weights["second"]
    return -(jax.nn.log_softmax(logits) * targets).sum()


def step(mine: dict[str, jax.Array], images: jax.Array, targets: jax.Array) -> dict[str, jax.Array]:
    """What each process does with its rows of the weights, of the images and of the targets."""
    weights = jax.tree.map(lambda w: jax.lax.all_gather(w, "ranks", tiled=True), mine)
    gradients = jax.grad(loss_sum)(weights, images, targets)
    sums = jax.tree.map(lambda g: jax.lax.psum_scatter(g, "ranks", tiled=True), gradients)
    return jax.tree.map(lambda w, g: w - RATE / BATCH * g, mine, sums)


def mean_loss(mine: dict[str, jax.Array], images: jax.Array, targets: jax.Array) -> jax.Array:
    weights = jax.tree.map(lambda w: jax.lax.all_gather(w, "ranks", tiled=True), mine)
    return jax.lax.psum(loss_sum(weights, images, targets), "ranks") / (images.shape[0] * size)


def on_mesh(function, out_specs):
    return jax.jit(jax.shard_map(function, mesh=mesh, in_specs=P("ranks"), out_specs=out_specs))


def divided(array: np.ndarray) -> jax.Array:
    return jax.make_array_from_callback(array.shape, rows, lambda index: array[index])


random = np.random.default_rng(0)  # the same weights on every process
weights = {
    "first": divided(random.standard_normal((64, 64)).astype(np.float32) / 8),
    "second": divided(random.standard_normal((64, 10)).astype(np.float32) / 8),
}
step, mean_loss = on_mesh(step, P("ranks")), on_mesh(mean_loss, P())

for epoch in range(10):
    order = np.random.default_rng(epoch).permutation(len(images))  # the same on every process
    for start in range(0, len(order) - BATCH + 1, BATCH):
        batch = order[start : start + BATCH]
        weights = step(weights, divided(images[batch]), divided(targets[batch]))

loss = mean_loss(weights, divided(images[:1792]), divided(targets[:1792]))
print(f"rank {rank} of {size}: loss {float(loss):.6f}", flush=True)
