"""What each rank does for ``mlxdist doctor``: checks, a sum, a comparison of the ranks. Rank 0 prints JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist import _core, config, errors, world
from mlxdist.cli.doctor import checks, environment
from mlxdist.cli.doctor.finding import Finding
from mlxdist.cli.objects import all_gather_object
from mlxdist.mpi import launchers

MARK = "mlxdist.probe: "  # in front of the JSON, since a launcher may print other lines
TIMEOUT_S = 20.0
LENGTH = 100_000  # elements: more than one piece, by shared memory and by MPI

Values = dict[str, dict[str, list[int]]]  # by name and value, the ranks that have it


def program(hosts: Sequence[str]) -> list[str]:
    """The command line of each rank."""
    return [sys.executable, "-c", f"import sys; from {__name__} import run_probe; sys.exit(run_probe({list(hosts)}))"]


def run_probe(hosts: Sequence[str]) -> int:
    """Do the part of one rank; the exit status. Errors are printed like results."""
    found = checks.findings(environment.examine(hosts), on_each_rank=True)
    # before MPI starts, which may end this process
    _print({"host": platform.node(), "findings": [dataclasses.asdict(finding) for finding in found]})
    try:
        result = _verify(found)
    except (errors.Error, ValueError) as error:
        result = {"error": str(error)}
    except Exception as error:
        result = {"error": f"a rank failed with {type(error).__name__}, {error}: report this as a bug of mlxdist"}
    _print(result)
    if "error" in result:
        time.sleep(world.PASS_ON_S)
    return int("error" in result)


def _print(result: object) -> None:
    print(f"{MARK}{json.dumps(result)}\n", end="", flush=True)


def _verify(found: list[Finding]) -> dict[str, Any]:
    began = time.monotonic()
    group = dist.init(timeout_s=TIMEOUT_S)
    rank, size = group.rank(), group.size()
    total, expected = dist.all_sum(np.full(LENGTH, rank + 1.0)), size * (size + 1) / 2
    if not (total == expected).all():
        raise errors.Error(f"[all_sum] rank {rank} got {total[total != expected][0]}, not {expected}: update MPI")
    took_s = time.monotonic() - began
    found = [*found, *_verify_mlx(rank, expected)]
    parts = all_gather_object({"identity": _identity(), "findings": [dataclasses.asdict(finding) for finding in found]})
    return _combine(parts, took_s) if rank == 0 else {}


def _verify_mlx(rank: int, expected: float) -> list[Finding]:
    """The same sum with MLX, if all ranks have it."""
    why, here = "", environment.is_installed("mlx.core")
    if here:
        try:
            import mlx.core as mx

            dist.install()
        except ImportError as error:
            why = f"MLX cannot be imported, {error}: {sys.executable} -m pip install --force-reinstall mlx"
        except errors.Error as error:
            why = str(error)
    if bool(dist.all_min(np.bool_(here and not why))):
        total = np.array(mx.distributed.all_sum(mx.full((10,), rank + 1.0)))
        why = "" if (total == expected).all() else f"MLX's sum is {total[0]}, not {expected}: update MLX"
    return [Finding.of(why)] if why else []


def _identity() -> dict[str, str]:
    """What should be the same on all ranks, and the host, which need not be."""
    info = dist.info()
    mpirun = launchers.own_launcher(launchers.LibraryInfo(info.libmpi, "", info.version))
    prefixes = [Path(path).parent.parent for path in (info.libmpi, mpirun) if path]
    return {
        "host": platform.node(),
        **environment.versions(),
        "libmpi": info.libmpi,
        "MPI": info.version.partition("\n")[0].strip(),
        **_without_launchers_own(config.deciding(os.environ), prefixes),
    }


def _without_launchers_own(variables: Mapping[str, str], prefixes: Sequence[Path]) -> dict[str, str]:
    """``variables`` without the MPI's own folders, which Open MPI's mpirun adds on other hosts only (4.1.4, 5.0.11)."""
    # An empty entry is what is left of a variable that was not set.
    own = {"", *(str(prefix / folder) for prefix in prefixes for folder in ("bin", "lib", "lib64"))}
    lists = {
        name: os.pathsep.join(entry for entry in variables[name].split(os.pathsep) if entry not in own)
        for name in ("PATH", "LD_LIBRARY_PATH")
        if name in variables
    }
    return {**variables, **lists}


def _combine(parts: Sequence[Mapping[str, Any]], took_s: float) -> dict[str, Any]:
    """The result for all ranks, which rank 0 prints."""
    info = dist.info()
    found: dict[str, list[int]] = {}
    for rank, part in enumerate(parts):
        for finding in part["findings"]:
            found.setdefault(json.dumps(finding), []).append(rank)
    hosts = [part["identity"].pop("host") for part in parts]
    return {
        "hosts": hosts,
        "took_s": took_s,
        "facts": {
            "threads": info.threads,
            "CUDA aware": "yes" if _core.cuda_aware() else "no",
            "kernels": info.kernels,
            "shared memory": info.shared_memory,
        },
        "findings": [[json.loads(finding), ranks] for finding, ranks in found.items()],
        "differences": differences(part["identity"] for part in parts),
    }


def differences(identities: Iterable[Mapping[str, str]]) -> Values:
    """The names whose values differ between ranks: each value ("" if there is none) with the ranks that have it."""
    values: Values = {}
    ranks = list(identities)
    for name in dict.fromkeys(name for identity in ranks for name in identity):
        for rank, identity in enumerate(ranks):
            values.setdefault(name, {}).setdefault(identity.get(name, ""), []).append(rank)
    return {name: by_value for name, by_value in values.items() if len(by_value) > 1}
