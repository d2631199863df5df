"""jaxlib's MPI is mlxdist: jaxlib opens a shim, ``core/shims/jax_mpiwrapper.c``, as the MPI of XLA's CPU collectives.

It does so when it is loaded, and only if it finds the path in the environment. So the import of ``jax`` is watched for.
"""

from __future__ import annotations

import functools
import os
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from mlxdist import _core, config, errors, shims, world

SHIM = shims.path_of("jax_mpiwrapper")


class _Finder:
    """The first in ``sys.meta_path``, until ``jax`` is imported; the others find it, also for who only looks for it."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name != "jax":
            return None
        others = (finder for finder in sys.meta_path if finder is not _Finder)
        spec = next((found for finder in others if (found := finder.find_spec(name, path, target)) is not None), None)
        if spec is not None and spec.loader is not None:
            spec.loader.exec_module = functools.partial(_load, spec.loader)  # type: ignore[method-assign]
        return spec


def _load(loader: Any, module: ModuleType) -> None:
    del loader.exec_module  # it is the class's again
    world.end_at_exit()  # JAX waits at its own exit for what it has begun
    name = config.JAX_MPI.name
    earlier = os.environ.get(name)
    if os.path.exists(SHIM):  # else jaxlib would end the process
        os.environ[name] = SHIM
    try:
        loader.exec_module(module)
    finally:
        os.environ.pop(name, None)  # a child process with JAX alone would take us for its MPI
        if earlier is not None:
            os.environ[name] = earlier
    if _Finder in sys.meta_path:
        sys.meta_path.remove(_Finder)
    from mlxdist.jax import distributed

    distributed.replace_initialize()


def watch_import() -> None:
    """Have jaxlib open the shim when the program imports ``jax``; too late if it has."""
    if "jax" not in sys.modules and _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)


def attach() -> None:
    """Connect the shim that jaxlib has opened to the core."""
    if _core.connect_jax(SHIM):
        return
    shims.check("initialize", SHIM)
    raise errors.Error(
        "[initialize] jaxlib was loaded before mlxdist.jax, and opens its MPI only then: import mlxdist.jax before jax "
        "and what imports it, or start the program with python -m mlxdist"
    )
