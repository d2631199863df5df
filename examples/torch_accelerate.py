"""Data-parallel training with Hugging Face's Accelerate, on ranks of any MPI: pip install accelerate

    python examples/torch_accelerate.py                   one process
    mpirun -np 2 python examples/torch_accelerate.py      on two ranks

Accelerate takes the process group that it finds. All ranks print the same loss, which does not depend on the number of
ranks.
"""

import torch
from accelerate import Accelerator
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy

import mlxdist.torch  # noqa: F401

BATCH = 120  # images in a batch, over all ranks

torch.distributed.init_process_group("mlxdist")
accelerator = Accelerator(cpu=True)
rank, size = accelerator.process_index, accelerator.num_processes
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
images = images.float() / 16

torch.manual_seed(0)  # the same weights and the same order of the images on every rank
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5))

for _ in range(5):
    order = torch.randperm(len(images))
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = order[start + rank : start + BATCH : size]
        optimizer.zero_grad()
        # not the mean over the share: shares may differ by one image
        accelerator.backward(cross_entropy(model(images[mine]), labels[mine], reduction="sum") / (BATCH / size))
        optimizer.step()

with torch.no_grad():
    loss = cross_entropy(model(images), labels)
print(f"rank {rank} of {size}: loss {loss:.6f}", flush=True)
torch.distributed.destroy_process_group()
