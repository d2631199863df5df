"""`mlxdist bench` measures every operation, with correct results; its speed is not tested."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import mpis
import pytest
from conftest import Finished, run

from mlxdist.cli.bench.cases import OPERATIONS, PARTED

BENCH = ("-m", "mlxdist", "bench")
EVERY = ("--op", *OPERATIONS)
TINY = ("--min", "4", "--max", "16", "--rounds", "1")


def bench(mpi: mpis.MPI, size: int, *options: str, **environ: str) -> Finished:
    command = [sys.executable, *BENCH, *options]
    return run(mpi.command(size, *command), timeout_s=100, **(mpi.environment() | environ))


def test_every_operation(two: mpis.MPI, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    dtypes = ("float32", "float16", *(("bfloat16",) if importlib.util.find_spec("ml_dtypes") else ()))
    finished = bench(two, 2, *EVERY, *TINY, "--dtype", *dtypes, "--check", "--json", str(written))
    assert finished.status == 0, finished.output
    assert f"checked: {len(OPERATIONS) * len(dtypes) * 2} cases" in finished
    whole = json.loads(written.read_text())
    assert whole["size"] == 2
    assert whole["version"].startswith(two.version)
    assert len(whole["results"]) == len(OPERATIONS) * len(dtypes) * 2
    for result in whole["results"]:
        assert result["checked"]
        assert {"mlxdist", "raw C"} <= set(result["median_us"])
        assert ("mlxdist, shared" in result["median_us"]) == (result["operation"] == "all_sum")
        assert all(len(rounds) == 1 for rounds in result["rounds_us"].values())
        assert not set(result["skipped"]) & set(result["median_us"])
        assert result["bound_us"] is None, "too short to be limited by memory"
        assert f"{result['operation']} {result['dtype']}" in finished
        if result["operation"] in PARTED:
            assert result["nbytes"] in (4, 8, 16), "at least an element for each rank"


def test_long_messages_are_held_against_memory(two: mpis.MPI, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    options = ("--op", "all_sum_in_place", "--min", "1M", "--max", "1M", "--rounds", "1", "--check")
    finished = bench(two, 2, *options, "--json", str(written))
    assert finished.status == 0, finished.output
    (result,) = json.loads(written.read_text())["results"]
    assert result["in_place"]
    assert result["nbytes"] == 1 << 20
    assert result["bound_us"] > 0
    assert result["bound"] == "memory"
    assert "%" in finished


def test_three_ranks_of_which_none_share_memory(two: mpis.MPI) -> None:
    """sum_scatter needs lengths that divide by 3; arrays of empty() are not available."""
    finished = bench(two, 3, "--op", "all_sum", "sum_scatter", *TINY, "--check", MLXDIST_SHARED_MEMORY="0")
    assert finished.status == 0, finished.output
    assert "skipped: mlxdist, shared: [empty]" in finished


def test_starts_its_ranks(one: mpis.MPI, tmp_path: Path) -> None:
    written = tmp_path / "figures.json"
    options = ("-n", "2", "--op", "broadcast", *TINY, "--env", "MLXDIST_SHARED_MEMORY=0", "--json", str(written))
    finished = run([sys.executable, *BENCH, *options], MLXDIST_LIBMPI=str(one.library_path))
    assert finished.status == 0, finished.output
    assert "broadcast float32" in finished
    assert "[0] " not in finished
    whole = json.loads(written.read_text())
    assert whole["version"].startswith(one.version)
    assert [ranks for _, ranks in whole["hosts"]] == [2]
    assert "raw C" in whole["results"][0]["median_us"]


def test_ranks_start_no_ranks(one: mpis.MPI) -> None:
    finished = bench(one, 2, "-n", "2", *TINY)
    assert finished.status != 0
    assert "mlxdist bench: this process is itself a rank of" in finished


def test_a_library_that_one_rank_lacks_is_skipped(one: mpis.MPI) -> None:
    options = ["bench", "--op", "all_sum", *TINY, "--gloo", "--mlx"]
    program = f"""
import sys
import mlxdist as dist
from mlxdist.cli import main

if dist.init().rank():
    sys.modules.update(dict.fromkeys(("torch.distributed", "mlx.core")))
main({options})
"""
    finished = run(one.command(2, sys.executable, "-c", program), timeout_s=60, **one.environment())
    assert finished.status == 0, finished.output
    for library in ("torch gloo", "MLX ring"):
        assert f"skipped: {library}: " in finished


@pytest.mark.parametrize("addresses", ["wire._addresses()", "[]"])
def test_hosts_are_held_against_the_wire(one: mpis.MPI, tmp_path: Path, addresses: str) -> None:
    """Two ranks whose hosts call themselves differently, so what is between them is a network."""
    written = tmp_path / "figures.json"
    options = [
        "bench",
        "--op",
        "all_gather",
        "--min",
        "64K",
        "--max",
        "64K",
        "--no-gloo",
        "--no-mlx",
        "--json",
        str(written),
    ]
    program = f"""
import socket
import mlxdist as dist
from mlxdist.cli import main
from mlxdist.cli.bench import wire

name, addresses = f"host{{dist.init().rank()}}", {addresses}
socket.gethostname, wire._addresses = lambda: name, lambda: addresses
main({options})
"""
    finished = run(one.command(2, sys.executable, "-c", program), **one.environment())
    assert finished.status == 0, finished.output
    whole = json.loads(written.read_text())
    assert whole["hosts"] == [["host0", 1], ["host1", 1]]
    (result,) = whole["results"]
    if whole["wire_bytes_per_s"]:
        assert addresses != "[]"
        least_us = 1e6 * result["nbytes"] / min(whole["wire_bytes_per_s"])
        assert result["bound_us"] == pytest.approx(least_us)
        assert "%" in finished
    else:  # this machine has no network
        assert "wire: not measured, host" in finished
        assert result["bound_us"] is None
    assert {"mlxdist", "raw C"} <= set(result["median_us"])


def test_alone() -> None:
    finished = run([sys.executable, *BENCH])
    assert finished.status == 2
    assert finished.output == (
        "mlxdist bench: one rank has no peers: give -n 2, or --hosts a,b, or start it with mpirun -np 2 mlxdist bench\n"
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max", "many"), "'many' is not a size: give one like 4, 64K or 256M"),
        (("--op", "all_max"), "invalid choice"),
        (("--dtype", "int"), "argument --dtype: invalid choice"),
        (("--json",), "argument --json: expected one argument"),
        (("--rounds", "0"), "argument --rounds: '0' is not a number of rounds: give 1 or more"),
    ],
)
def test_wrong_options(options: tuple[str, ...], words: str) -> None:
    finished = run([sys.executable, *BENCH, *options])
    assert finished.status == 2
    assert words in finished
    assert finished.output.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--min", "17", "--max", "18"), "there is no power of 4 from --min 17 to --max 18"),
        (
            ("--json", "/nowhere/figures.json"),
            "--json /nowhere/figures.json cannot be written: give a file in a folder that exists",
        ),
        (("--plot", "/"), "--plot / cannot be written: give a file in a folder that exists"),
    ],
)
def test_what_cannot_be_measured(one: mpis.MPI, options: tuple[str, ...], words: str) -> None:
    """One rank prints the reason, before anything is measured."""
    finished = bench(one, 2, *options)
    assert finished.status != 0
    assert finished.output.count(f"mlxdist bench: {words}") == 1
    assert "us: " not in finished
    assert "Traceback" not in finished


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("-n", "1"), "one rank has no peers"),
        (("-n", "2", "--min", "17", "--max", "18"), "there is no power of 4 from --min 17 to --max 18"),
        (("--hosts", "a,b", "--max", "16"), "there is no power of 4 from --min 1024 to --max 16"),
        (("-n", "2", "--json", "/nowhere/figures.json"), "--json /nowhere/figures.json cannot be written"),
    ],
)
def test_what_cannot_be_measured_is_not_started(options: tuple[str, ...], words: str) -> None:
    finished = run([sys.executable, *BENCH, *options])
    assert finished.status == 2
    assert finished.output.startswith(f"mlxdist bench: {words}")
    assert finished.output.count("\n") == 1


def test_an_invalid_variable() -> None:
    finished = run([sys.executable, *BENCH], MLXDIST_TIMEOUT_S="soon")
    assert finished.status == 2
    assert finished.output.startswith("mlxdist bench: [init] MLXDIST_TIMEOUT_S='soon'")
    assert finished.output.count("\n") == 1
