"""What the ranks of a subcommand tell each other; every rank must call these."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

import mlxdist as dist


def all_gather_object(mine: object) -> list[Any]:
    """The object of every rank, sent as JSON."""
    text = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    lengths = dist.all_gather(np.array([text.size]))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: text.size] = text
    rows = dist.all_gather(padded).reshape(lengths.size, -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def on_any_rank(here: object) -> bool:
    """Whether ``here`` is true on any rank."""
    return bool(dist.all_max(np.bool_(here)))
