"""Training with FSDP2 (fully_shard): each rank holds a part of every parameter, gradient and optimizer state.

    python examples/torch_fsdp.py                   one process
    mpirun -np 2 python examples/torch_fsdp.py      on two ranks

All ranks print the same loss, which does not depend on the number of ranks. At the end the parts are saved with
torch.distributed.checkpoint, and loaded into another model.
"""

import tempfile

import torch
import torch.distributed.checkpoint as checkpoint
from sklearn.datasets import load_digits
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.functional import cross_entropy

import mlxdist.torch  # noqa: F401

BATCH = 120  # images in a batch, over all ranks

torch.distributed.init_process_group("mlxdist")
rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
mesh = init_device_mesh("cpu", (size,))
images, labels = map(torch.from_numpy, load_digits(return_X_y=True))
images = images.float() / 16


def sharded_model() -> torch.nn.Module:
    """The same weights on every rank, which then keeps its part of them."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh(), torch.nn.Linear(64, 10))
    for layer in (model[0], model[2], model):
        fully_shard(layer, mesh=mesh)
    return model


model = sharded_model()
optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
for _ in range(5):
    order = torch.randperm(len(images))  # the same on every rank
    for start in range(0, len(order) - BATCH + 1, BATCH):
        mine = order[start + rank : start + BATCH : size]
        optimizer.zero_grad()
        # FSDP averages over the ranks. Not the mean over the share: shares may differ by one image.
        (cross_entropy(model(images[mine]), labels[mine], reduction="sum") / (BATCH / size)).backward()
        optimizer.step()

folders = [tempfile.mkdtemp()]
torch.distributed.broadcast_object_list(folders, 0)  # rank 0's, which all ranks must see
checkpoint.save({"model": model.state_dict()}, checkpoint_id=folders[0])
loaded = sharded_model()
checkpoint.load({"model": loaded.state_dict()}, checkpoint_id=folders[0])

with torch.no_grad():
    loss, again = (cross_entropy(each(images), labels) for each in (model, loaded))
assert torch.equal(loss, again)
held = sum(parameter.to_local().numel() for parameter in model.parameters())
print(f"rank {rank} of {size}: loss {loss:.6f}, {held} parameters held", flush=True)
torch.distributed.destroy_process_group()
