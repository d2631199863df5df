"""PyTorch's distributed package on any MPI: a backend that is called "mlxdist".

>>> import mlxdist.torch
>>> torch.distributed.init_process_group("mlxdist")

Importing this registers it. Everything else is torch.distributed's own: see docs/torch.md.
"""

from __future__ import annotations

from typing import Any

from torch import distributed

from mlxdist.torch import start
from mlxdist.torch.process_group import ProcessGroup

__all__ = ["ProcessGroup"]


def _create(options: Any, _: Any) -> ProcessGroup:
    """What torch.distributed calls on each member of a group."""
    group = start.group_of(options.group_rank, options.group_size, list(options.global_ranks_in_group))
    return ProcessGroup(group, options.timeout, options.group_id)


start.register()
distributed.Backend.register_backend("mlxdist", _create, extended_api=True, devices=["cpu"])
