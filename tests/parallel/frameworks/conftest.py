"""The process groups of the tests of torch.distributed."""

from __future__ import annotations

import datetime
import importlib
import os
from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="module")
def groups() -> Iterator[dict[str, Any]]:
    """The default group is mlxdist's, the other gloo's."""
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    c10d = importlib.import_module("torch.distributed")
    importlib.import_module("mlxdist.torch")
    c10d.init_process_group("mlxdist", timeout=datetime.timedelta(seconds=60))
    yield {"mlxdist": c10d.group.WORLD, "gloo": c10d.new_group(backend="gloo")}
    c10d.destroy_process_group()


@pytest.fixture
def gloo(groups: dict[str, Any]) -> Any:
    return groups["gloo"]
