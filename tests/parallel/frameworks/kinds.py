"""Arrays of frameworks: made from NumPy arrays and converted back, bit by bit."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from parallel.reference import COMPLEX, dtype_of


@dataclass(frozen=True)
class Kind:
    """What the tests need to know about a framework's arrays.

    Attributes:
        views: name -> NumPy array -> its elements as an array of the framework, or None if it cannot hold them.
        elements: an array of the framework -> its elements.
        cls: the class of results.
        dtype: name -> what to pass to recv.
        is_mutable: whether an array can be out=.
    """

    views: dict[str, Callable[[np.ndarray], Any]]
    elements: Callable[[Any], np.ndarray]
    cls: type
    dtype: Callable[[str], Any]
    is_mutable: bool


def torch_kind() -> Kind:
    import torch

    def made(x: np.ndarray) -> Any:
        if x.dtype == dtype_of("bfloat16"):
            return torch.from_numpy(x.view(np.int16).copy()).view(torch.bfloat16)
        return torch.from_numpy(x.copy())

    def elements(x: Any) -> np.ndarray:
        x = x.resolve_conj().resolve_neg()
        if x.dtype == torch.bfloat16:
            return x.view(torch.int16).numpy().view(dtype_of("bfloat16"))
        return x.numpy()

    def strided(x: np.ndarray) -> Any:
        held = torch.zeros((*x.shape, 2), dtype=getattr(torch, x.dtype.name))
        held[..., 0] = made(x)
        return held[..., 0]

    def negated(x: Any) -> Any:
        return torch.complex(torch.zeros_like(x), -x).conj().imag

    views = {
        "contiguous": made,
        "strided": strided,
        "transposed": lambda x: made(np.ascontiguousarray(x.T)).T if x.ndim == 2 else None,
        "lazy conjugate": lambda x: made(np.conj(x, out=np.empty_like(x))).conj() if x.dtype.name in COMPLEX else None,
        "lazy negative": lambda x: negated(made(x)) if x.dtype.name in ("float32", "float64") else None,
        "in inference mode": torch.inference_mode()(made),
    }
    return Kind(views, elements, torch.Tensor, lambda name: getattr(torch, name), is_mutable=True)


def jax_kind() -> Kind:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)
    views = {
        "contiguous": lambda x: jax.device_put(x.copy()),
        "computed": lambda x: jnp.flip(jax.device_put(np.flip(x))),
        "committed": lambda x: jax.device_put(x.copy(), jax.devices()[0]),
    }
    return Kind(
        views, np.asarray, jax.Array, lambda name: getattr(jnp, "bool_" if name == "bool" else name), is_mutable=False
    )


KINDS = {"torch": torch_kind, "jax": jax_kind}


def kind_of(name: str) -> Kind:
    """The Kind of a framework; skips the test where it is not installed."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    return KINDS[name]()
