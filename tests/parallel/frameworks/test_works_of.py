"""Calls in the background on tensors of PyTorch and arrays of JAX."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parallel.in_background import OPERATIONS, check_average_gradients, check_messages, check_out, check_result
from parallel.ring import needs_peers

import mlxdist as dist


def tensor(x: np.ndarray) -> Any:
    return pytest.importorskip("torch").from_numpy(x)


def jax_array(x: np.ndarray) -> Any:
    return pytest.importorskip("jax.numpy").asarray(x)


each_framework = pytest.mark.parametrize("made", [tensor, jax_array])


@each_framework
@pytest.mark.parametrize("operation", OPERATIONS)
def test_the_result_is_that_of_the_call(operation: str, made: Any) -> None:
    check_result(made, operation)


def test_the_result_goes_to_out() -> None:
    check_out(tensor)


@each_framework
def test_messages(made: Any) -> None:
    needs_peers(dist.init())
    check_messages(made)


@each_framework
@pytest.mark.parametrize("all_reduce_size", [0, 1000, 32 << 20])
def test_average_gradients(made: Any, all_reduce_size: int) -> None:
    check_average_gradients(made, all_reduce_size)
