"""The testbed itself: hosts are apart, links have their rate, cables can be cut, and nothing is left of it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hosts import testbed
from hosts.testbed import Testbed

NBYTES = 5_000_000


def on(bed: Testbed, host: str, *command: str) -> str:
    return subprocess.run(bed.command(host, *command), text=True, capture_output=True, check=True, timeout=20).stdout


def test_hosts_are_apart(bed: Testbed) -> None:
    for what in (["hostname"], ["cat", "/proc/sys/kernel/random/boot_id"], ["stat", "-c", "%d", "/tmp", "/dev/shm"]):
        assert len({on(bed, host, *what) for host in bed.address}) == len(bed.address)
    assert on(bed, "h1", "ssh", "h3", "hostname") == "h3\n"


def test_rate_and_count(bed: Testbed) -> None:
    """200 Mbit/s, and a plain stream is counted with less than 1 % of headers."""
    before, began = bed.sent("h2"), time.monotonic()
    copied = on(bed, "h1", "sh", "-c", f"ssh h2 head -c {NBYTES} /dev/zero | wc -c")
    seconds, count = time.monotonic() - began, bed.sent("h2") - before
    assert int(copied) == NBYTES
    assert seconds > (NBYTES - 400_000) * 8 / 200e6
    assert NBYTES < count < 1.02 * NBYTES  # ssh's own headers, too


def test_a_cable_is_cut_and_healed(bed: Testbed) -> None:
    ask = bed.command("h1", "ssh", "-o", "ConnectTimeout=1", "h2", "hostname")
    bed.cut("h2")
    try:
        assert subprocess.run(ask, capture_output=True, timeout=10).returncode == 255
        assert on(bed, "h1", "ssh", "h3", "hostname") == "h3\n"
    finally:
        bed.heal("h2")
    assert subprocess.run(ask, capture_output=True, text=True, timeout=10).stdout == "h2\n"


@pytest.mark.parametrize("killed", [False, True], ids=["ended", "killed"])
def test_nothing_is_left(bed: Testbed, killed: bool) -> None:
    """Beside `bed`, which also skips this where there can be none."""
    assert not bed.files.exists()
    command = ["sh", "-c", f"sleep 1000 & echo here; exec sleep {1000 if killed else 1}"]
    program = [sys.executable, testbed.__file__, "--hosts", "2", *command]
    process = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert process.stdout
    assert process.stdout.readline() == "here\n"
    networks = {network for network, parent in processes() if parent == process.pid} - {network_of(Path("/proc/self"))}
    assert len(networks) == 3  # of two hosts and the switch
    if killed:
        process.kill()
    process.wait(10)
    deadline = time.monotonic() + 10
    while (left := networks & {network for network, _ in processes()}) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == set()


def network_of(process: Path) -> int:
    return (process / "ns/net").stat().st_ino


def processes() -> list[tuple[int, int]]:
    """The network and the parent of every process."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            found.append((network_of(entry), parent))
    return found
