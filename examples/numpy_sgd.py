"""Stochastic gradient descent with NumPy alone: a softmax regression of handwritten digits.

    python examples/numpy_sgd.py                   one process
    mpirun -np 2 python examples/numpy_sgd.py      on two ranks

Every rank processes its share of each batch, and the gradients are averaged in place. All ranks print the same loss,
which does not depend on the number of ranks.
"""

import numpy as np
from sklearn.datasets import load_digits

import mlxdist as dist

BATCH = 120  # images in a batch, over all ranks
RATE = 0.5

world = dist.init()
rank, size = world.rank(), world.size()
images, labels = load_digits(return_X_y=True)
images, targets = images / 16, np.eye(10)[labels]
weights = {"slope": np.zeros((64, 10)), "offset": np.zeros(10)}


def probabilities(images: np.ndarray) -> np.ndarray:
    powers = np.exp(images @ weights["slope"] + weights["offset"])
    return powers / powers.sum(axis=1, keepdims=True)


for epoch in range(10):
    order = np.random.default_rng(epoch).permutation(len(images))  # the same on every rank
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = order[start + rank : start + BATCH : size]
        # not / len(mine): shares may differ by one image, but the average must be that of the whole batch
        errors = (probabilities(images[mine]) - targets[mine]) / (BATCH / size)
        gradients = {"slope": images[mine].T @ errors, "offset": errors.sum(axis=0)}
        dist.average_gradients(gradients)  # in place
        for name, gradient in gradients.items():
            weights[name] -= RATE * gradient

loss = -np.log((probabilities(images) * targets).sum(axis=1)).mean()
print(f"rank {rank} of {size}: loss {loss:.8f}", flush=True)
