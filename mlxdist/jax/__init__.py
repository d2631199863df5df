"""JAX: its own collectives between processes, those of ``jit`` and ``shard_map``, run on mlxdist.

Import it before ``jax``, or start the program with ``python -m mlxdist``: jaxlib opens its MPI when it is loaded.

>>> import mlxdist.jax
>>> import jax
>>> mlxdist.jax.initialize()
"""

from typing import Any

from mlxdist.jax import backend

backend.watch_import()

_MODULES = {"initialize": "distributed"}  # where the names are that need jax

__all__ = ["initialize"]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
