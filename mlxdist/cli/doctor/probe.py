"""What the ranks do for ``mlxdist doctor``: a sum, and a look at what differs between them. Rank 0 tells it as JSON."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

import mlxdist as dist
from mlxdist import _core, config, errors, world
from mlxdist.cli.doctor import checks, environment
from mlxdist.cli.doctor.finding import Finding

MARK = "mlxdist.proof: "  # stands before the JSON, among all that a launcher prints
LIMIT_S = 20.0  # for the others to come
LENGTH = 100_000  # elements; more than one piece, however they are sent

Values = dict[str, dict[str, list[int]]]  # of each name, its values and who has them


def program(hosts: Sequence[str]) -> list[str]:
    """The command line of each rank."""
    return [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main({list(hosts)}))"]


def main(hosts: Sequence[str]) -> int:
    """Do a rank's part; the exit status. What is wrong is told as what is right is."""
    found = checks.findings(environment.look(hosts), on_each_rank=True)
    # at once, since MPI may end this process
    _tell({"host": platform.node(), "findings": [dataclasses.asdict(finding) for finding in found]})
    try:
        told = _prove(found)
    except (errors.Error, ValueError) as error:
        told = {"error": str(error)}
    except Exception as error:  # nothing may get past the one who asked
        told = {"error": f"a rank failed with {type(error).__name__}, {error}: report this to mlxdist"}
    _tell(told)
    if "error" in told:
        time.sleep(world.PASS_ON_S)
    return int("error" in told)


def _tell(what: object) -> None:
    print(f"{MARK}{json.dumps(what)}\n", end="", flush=True)


def _prove(found: list[Finding]) -> dict[str, Any]:
    began = time.monotonic()
    group = dist.init(timeout_s=LIMIT_S)
    rank, size = group.rank(), group.size()
    total, right = dist.all_sum(np.full(LENGTH, rank + 1.0)), size * (size + 1) / 2
    if not (total == right).all():
        raise errors.Error(f"[all_sum] rank {rank} got {total[total != right][0]}, and {right} is right: update MPI")
    took_s = time.monotonic() - began
    found = [*found, *_mlx(rank, right)]
    everyone = _gather({"is": _identity(), "findings": [dataclasses.asdict(finding) for finding in found]})
    return _together(everyone, took_s) if rank == 0 else {}


def _mlx(rank: int, right: float) -> list[Finding]:
    """The same sum by MLX, where it is installed on all ranks."""
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
        why = "" if (total == right).all() else f"MLX got {total[0]} for a sum that is {right}: update MLX"
    return [Finding.of(why)] if why else []


def _identity() -> dict[str, str]:
    """All that ranks should have alike, and the host, which they need not."""
    info = dist.info()
    return {
        "host": platform.node(),
        **environment.versions(),
        "libmpi": info.libmpi,
        "MPI": info.version.partition("\n")[0].strip(),
        **config.deciding(os.environ),
    }


def _gather(mine: object) -> list[Any]:
    """The object of every rank, by JSON."""
    text = np.frombuffer(json.dumps(mine).encode(), np.uint8)
    lengths = dist.all_gather(np.array([text.size]))
    padded = np.zeros(lengths.max(), np.uint8)
    padded[: text.size] = text
    rows = dist.all_gather(padded).reshape(lengths.size, -1)
    return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths, strict=True)]


def _together(everyone: Sequence[Mapping[str, Any]], took_s: float) -> dict[str, Any]:
    """What rank 0 tells."""
    info = dist.info()
    found: dict[str, list[int]] = {}
    for rank, one in enumerate(everyone):
        for finding in one["findings"]:
            found.setdefault(json.dumps(finding), []).append(rank)
    hosts = [one["is"].pop("host") for one in everyone]
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
        "differences": differences(one["is"] for one in everyone),
    }


def differences(everyone: Iterable[Mapping[str, str]]) -> Values:
    """What ranks do not have alike: of each name, the values ("" for none) with the ranks that have them."""
    values: Values = {}
    ranks = list(everyone)
    for name in dict.fromkeys(name for one in ranks for name in one):
        for rank, one in enumerate(ranks):
            values.setdefault(name, {}).setdefault(one.get(name, ""), []).append(rank)
    return {name: held for name, held in values.items() if len(held) > 1}
