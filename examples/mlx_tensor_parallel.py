"""Inference with a transformer block whose weights are sharded over the ranks, with MLX's sharded layers, unchanged.

    python examples/mlx_tensor_parallel.py                   one process
    mpirun -np 2 python examples/mlx_tensor_parallel.py      on two ranks; any number that divides the 12 heads

An "all-to-sharded" layer computes the rank's own heads or features, and a "sharded-to-all" layer sums over the ranks:
one all_sum for attention, one for the rest of the block. All ranks print how far the result is from that of the
unsharded block; only the order of additions differs.
"""

import mlx.core as mx
import mlx.nn as nn
from mlx.nn.layers.distributed import shard_linear
from mlx.utils import tree_flatten

import mlxdist

DIMS, HEADS, HIDDEN, LENGTH = 96, 12, 384, 16


class Block(nn.Module):
    """Attention and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.norms = [nn.RMSNorm(DIMS), nn.RMSNorm(DIMS)]
        self.query, self.key, self.value, self.out = (nn.Linear(DIMS, DIMS) for _ in range(4))
        self.up, self.down = nn.Linear(DIMS, HIDDEN), nn.Linear(HIDDEN, DIMS)

    def __call__(self, x: mx.array) -> mx.array:
        """``x`` has the shape (batch, length, DIMS)."""
        y = self.norms[0](x)
        q, k, v = (part(y).reshape(*y.shape[:2], self.heads, -1).swapaxes(1, 2) for part in self.projections())
        heads = mx.fast.scaled_dot_product_attention(q, k, v, scale=q.shape[-1] ** -0.5, mask="causal")
        x = x + self.out(heads.swapaxes(1, 2).flatten(2))
        return x + self.down(mx.tanh(self.up(self.norms[1](x))))

    def projections(self) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The layers that compute queries, keys and values."""
        return self.query, self.key, self.value

    def shard(self, group: mx.distributed.Group) -> None:
        """Keep this rank's shard of the weights."""
        self.heads //= group.size()
        for name in ("query", "key", "value", "up"):
            self[name] = shard_linear(self[name], "all-to-sharded", group=group)
        for name in ("out", "down"):
            self[name] = shard_linear(self[name], "sharded-to-all", group=group)


mlxdist.install()
world = mx.distributed.init()
mx.random.seed(0)  # the same weights and the same input on every rank
block, x = Block(), mx.random.normal((2, LENGTH, DIMS))
whole = block(x)
mx.eval(whole)
block.shard(world)
held = sum(weights.size for _, weights in tree_flatten(block.parameters()))
difference = mx.abs(block(x) - whole).max().item() / mx.abs(whole).max().item()
print(f"rank {world.rank()} of {world.size()}: difference {difference:.1e}, {held} parameters held", flush=True)
