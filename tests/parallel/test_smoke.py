import numpy as np

import mlxdist as dist


def test_sum(world: dist.Group) -> None:
    np.testing.assert_array_equal(dist.all_sum(np.full(5, world.rank())), [sum(range(world.size()))] * 5)
