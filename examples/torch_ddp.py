"""Data-parallel training with DistributedDataParallel, on ranks of any MPI.

    python examples/torch_ddp.py                   one process
    mpirun -np 2 python examples/torch_ddp.py      on two ranks

Two lines differ from the same program on gloo: the import of mlxdist.torch, and the name of the backend. All ranks
print the same loss, which does not depend on the number of ranks.
"""

import torch
from sklearn.datasets import load_digits
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.data.distributed import DistributedSampler

import mlxdist.torch  # noqa: F401

BATCH = 120  # images in a batch, over all ranks

torch.distributed.init_process_group("mlxdist")
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
data = TensorDataset(images.float() / 16, labels)

sampler = DistributedSampler(data, seed=0, drop_last=True)  # rank r gets every size-th image from the r-th on
loader = DataLoader(data, batch_size=BATCH // size, sampler=sampler, drop_last=True)
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
model = DistributedDataParallel(model)
optimizer = torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.5)

for epoch in range(10):
    sampler.set_epoch(epoch)
    for x, y in loader:
        optimizer.zero_grad()
        cross_entropy(model(x), y).backward()  # and the mean of the gradients over all ranks
        optimizer.step()

with torch.no_grad():
    loss = cross_entropy(model(data.tensors[0]), labels)
print(f"rank {rank} of {size}: loss {loss:.6f}", flush=True)
torch.distributed.destroy_process_group()
