"""Data-parallel training with PyTorch: each rank holds the whole model and processes its share of every batch.

    python examples/torch_data_parallel.py                   one process
    mpirun -np 2 python examples/torch_data_parallel.py      on two ranks

It needs no process group and no wrapper around the model: average_gradients writes the mean over all ranks into each
.grad. All ranks print the same loss, which does not depend on the number of ranks.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import mlxdist as dist

BATCH = 120  # images in a batch, over all ranks

world = dist.init()
rank, size = world.rank(), world.size()
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
images = images.float() / 16

torch.manual_seed(0)  # the same weights and the same order of the images on every rank
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)

for _ in range(10):
    order = torch.randperm(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = order[start + rank : start + BATCH : size]
        optimizer.zero_grad()
        # not the mean over the share: shares may differ by one image
        loss = cross_entropy(model(images[mine]), labels[mine], reduction="sum") / (BATCH / size)
        loss.backward()
        dist.average_gradients([p.grad for p in model.parameters()])  # in place
        optimizer.step()

with torch.no_grad():
    loss = cross_entropy(model(images), labels)
print(f"rank {rank} of {size}: loss {loss:.8f}", flush=True)
