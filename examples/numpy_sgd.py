"""Stochastic gradient descent with NumPy alone: a softmax regression of handwritten digits.

    python examples/numpy_sgd.py                   alone
    mpirun -np 2 python examples/numpy_sgd.py      on two ranks

Every rank takes its share of each batch, and the gradients are averaged in place. All ranks print the same loss, and
that of one rank alone.
"""

import numpy as np
from sklearn.datasets import load_digits

import mlxdist as dist

BATCH = 120  # images of a batch on all ranks together
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
        # not / len(mine): shares of BATCH may differ by one image, and their mean has to be that of the whole batch
        errors = (probabilities(images[mine]) - targets[mine]) / (BATCH / size)
        gradients = {"slope": images[mine].T @ errors, "offset": errors.sum(axis=0)}
        dist.average_gradients(gradients)  # in place
        for name, gradient in gradients.items():
            weights[name] -= RATE * gradient

loss = -np.log((probabilities(images) * targets).sum(axis=1)).mean()
print(f"rank {rank} of {size}: loss {loss:.8f}", flush=True)
