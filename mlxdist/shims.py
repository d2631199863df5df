"""Where the shims are, which frameworks open in the place of other libraries: core/shims/, beside the extension."""

from __future__ import annotations

import os

from mlxdist import _core, errors


def path_of(name: str) -> str:
    """Of the shim that is built as ``mlxdist/_NAME``."""
    folder, core = os.path.split(_core.__file__)
    return os.path.join(folder, core.replace("_core", f"_{name}"))


def check(call: str, path: str) -> None:
    """Raise an error if there is no such file."""
    if not os.path.exists(path):
        raise errors.Error(
            f"[{call}] the mlxdist installation is incomplete (there is no {path}): "
            "pip install --force-reinstall mlxdist, or make build there"
        )
