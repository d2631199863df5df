"""What doctor and launch say about the networks between hosts is so, and what they advise works."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mpis
import pytest
from broken import path_with
from conftest import Finished, run
from hosts.conftest import Job
from hosts.testbed import MTU, Testbed

RATE = 200  # Mbit/s, of each link of the bed
# MPICH looks for networks in /sys, leaves bridges out, and prefers long frames.
CONTAINERS = f"""mount -t sysfs sysfs /sys
ip link add docker0 mtu {MTU} type veth peer name container mtu {MTU}
ip address add 172.17.0.1/16 dev docker0
ip link set docker0 up
ip link set container up"""
SUM = """
import signal, sys
signal.alarm(int(sys.argv[1]))  # MPI_Init may hang for ever
import mlxdist as dist

world = dist.init(timeout_s=5)
print("sum", int(dist.all_sum(world.rank() + 1)))
"""
KILLED = """
import os, signal, time
import mlxdist as dist

world = dist.init()
dist.barrier()
time.sleep(1)
if world.rank() == 1:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(30)
"""


def doctor(bed: Testbed, mpi: mpis.MPI, hosts: str) -> dict[str, Any]:
    command = bed.command("h1", sys.executable, "-m", "mlxdist", "doctor", "--json", "--hosts", hosts)
    environ = {"PATH": path_with(mpi.launcher_path.parent), "MLXDIST_LIBMPI": str(mpi.library_path)}
    finished = run(command, timeout_s=60, **environ)
    found = re.search(r"^\{.*^\}", finished.output, re.DOTALL | re.MULTILINE)
    assert found, finished.output
    told: dict[str, Any] = json.loads(found[0])
    assert told["works"], finished.output
    # A shell that ssh starts may have another PATH than this one.
    assert set(told["differences"]) <= {"PATH"}, finished.output
    return told


def test_links(bed: Testbed, where: mpis.MPI) -> None:
    """Each pair of hosts is measured, nothing is wrong, and what mpirun changes is no difference."""
    told = doctor(bed, where, "h1,h2,h3")
    end = r"(h\d) \(eth0 (\S+)\)"
    pattern = rf"{end} to {end}: round trip (\d+) us, ([\d.]+) Mbit/s$"
    facts = "\n".join(finding["fact"] for finding in told["findings"])
    links = {(found[1], found[3]): found for found in re.finditer(pattern, facts, re.MULTILINE)}
    assert sorted(links) == list(itertools.combinations(("h1", "h2", "h3"), 2)), told["findings"]
    for (a, b), found in links.items():
        assert (found[2], found[4]) == (bed.address[a], bed.address[b])
        assert 0 < int(found[5]) < 1e6
        assert RATE / 10 < float(found[6]) < 1.1 * RATE
    assert [finding for finding in told["findings"] if finding["severity"] != "note"] == []


@pytest.mark.parametrize("name", ["openmpi-4", "debian-openmpi"])
def test_an_older_mpirun_makes_no_differences(bed: Testbed, name: str, pytestconfig: pytest.Config) -> None:
    mpi = next((mpi for mpi in mpis.chosen(pytestconfig.getoption("--mpi")) if mpi.name == name), None)
    if not mpi:
        pytest.skip(f"{name} is not installed or not asked for")
    doctor(bed, mpi, "h1,h2")


@pytest.fixture
def containers(bed: Testbed) -> Iterator[None]:
    """h1 and h2 have a network of containers with the same address, and one is running."""
    for host in ("h1", "h2"):
        subprocess.run(bed.command(host, "sh", "-ec", CONTAINERS), check=True)
    yield
    for host in ("h1", "h2"):
        subprocess.run(bed.command(host, "sh", "-ec", "ip link delete docker0; umount /sys"), check=True)


def warnings(finished: Finished) -> list[str]:
    return re.findall(r"^mlxdist launch: .* through virtual networks: (.*)$", finished.output, re.MULTILINE)


@pytest.mark.usefixtures("containers")
def test_a_network_that_misleads(job: Job, where: mpis.MPI, tmp_path: Path) -> None:
    """Without the remedy the ranks do not get together, with it they do."""
    program = tmp_path / "sum.py"
    program.write_text(SUM)
    misled = job(where, "1+1", program, "4")
    assert misled.status != 0, misled.output
    assert "sum" not in misled
    (warning,) = warnings(misled)
    place, _, remedy = warning.partition(": export ")
    assert place == "docker0 (172.17.0.1) on h1, h2"
    right = job(where, "1+1", program, "10", **dict(word.split("=") for word in remedy.split()))
    assert right.status == 0, right.output
    assert right.output.count("sum 3") == 2, right.output
    assert warnings(right) == []
    alone = job(where, "2", program, "10")
    assert alone.status == 0, alone.output
    assert warnings(alone) == []


def test_nothing_is_left_on_other_hosts(job: Job, bed: Testbed, one: mpis.MPI, tmp_path: Path) -> None:
    program = tmp_path / "killed.py"
    program.write_text(KILLED)
    killed = job(one, "1+1", program)
    assert killed.status == 137, killed.output
    assert job.left() == []
    assert [path for host in ("h1", "h2") for path in bed.path(host, "/dev/shm").iterdir()] == []
