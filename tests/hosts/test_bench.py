"""`mlxdist bench` starts its ranks on several hosts, and holds what it measures against what is between them."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import mpis
import pytest
from conftest import run
from hosts.testbed import Testbed

RATE = 200e6 / 8  # bytes/s of the testbed


def test_the_wire_and_the_bytes(bed: Testbed, where: mpis.MPI, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    options = ["--op", "all_gather", "--min", "256K", "--max", "256K", "--no-gloo", "--check", "--json", str(written)]
    command = bed.command("h1", sys.executable, "-m", "mlxdist", "bench", "--hosts", "h1:2,h2", *options)
    finished = run(command, timeout_s=60, MLXDIST_LIBMPI=str(where.library_path))
    assert finished.status == 0, finished.output
    whole = json.loads(written.read_text())
    assert whole["hosts"] == [["h1", 2], ["h2", 1]]
    assert 0.2 * RATE < min(whole["wire_bytes_per_s"]) <= max(whole["wire_bytes_per_s"]) < 1.05 * RATE
    (result,) = whole["results"]
    assert result["least_sent"] == [2 << 18, 1 << 18]
    assert result["bound_us"] == pytest.approx(1e6 * (2 << 18) / min(whole["wire_bytes_per_s"]))
    for name in ("mlxdist", "raw C"):
        sent = result["sent"][name]
        assert all(count > 0.99 * least for count, least in zip(sent, result["least_sent"], strict=True)), sent
    assert f"wire: {min(whole['wire_bytes_per_s']) / 1e6:.4g} MB/s" in finished
