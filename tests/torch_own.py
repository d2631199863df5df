"""PyTorch's own tests of torch.distributed, from the installed wheel, on the ranks of an MPI.

    python tests/mpis.py run mpich-5 3 python tests/torch_own.py [--backend gloo] [--seconds 20] [WORD...]

Only the tests whose names contain one of the words; all by default. Each runs in a process group of its own, on the
processes that run all of them. Prints a line for each: passed, skipped and why, or what failed on which rank. The wheel
must have torch.testing, and needs expecttest. The tests that need a GPU, or a backend that they name, skip themselves.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib
import os
import tempfile
import traceback
import unittest
import warnings
from pathlib import Path
from typing import Any

import numpy as np

import mlxdist

# Where every rank reads the reasons.
TEXT_NBYTES = 400


def loaded(backend: str) -> Any:
    """The module with the tests; it decides when it is imported which of them skip themselves."""
    world = mlxdist.init()
    os.environ |= {
        "BACKEND": backend,
        "WORLD_SIZE": str(world.size()),
        "RANK": str(world.rank()),
        "GLOO_SOCKET_IFNAME": "lo",
        "PYTORCH_PRINT_REPRO_ON_FAILURE": "0",
    }
    os.environ.setdefault("MASTER_ADDR", "127.0.0.1")
    import torch.testing._internal.common_distributed as common

    importlib.import_module("mlxdist.torch")
    for feature in ("ddp", "subgroup", "plugin"):
        common.DistTestCases.backend_feature[feature].add("mlxdist")
    import torch.testing._internal.distributed.distributed_test as tests

    return tests


def outcome(case: unittest.TestCase, name: str, skips: dict[int, str]) -> tuple[str, str]:
    """passed, skipped or failed, and why."""
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(None):
            warnings.simplefilter("ignore")
            getattr(case, name)()
    except unittest.SkipTest as why:
        return "skipped", str(why)
    except SystemExit as end:
        return "skipped", skips.get(end.code if isinstance(end.code, int) else 0, f"exit {end.code}")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__} in {where.name}: {' '.join(str(error).split())}"
        return "failed", text
    return "passed", ""


def shared(world: mlxdist.Group, text: str) -> list[str]:
    """What each rank says."""
    given = np.zeros(TEXT_NBYTES, np.uint8)
    encoded = text.encode(errors="replace")[:TEXT_NBYTES]
    given[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    everyone = mlxdist.all_gather(given, group=world).reshape(world.size(), -1)
    return [bytes(each).rstrip(b"\0").decode(errors="replace") for each in everyone]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="mlxdist")
    parser.add_argument("--seconds", type=float, default=20, help="the timeout of the process groups")
    parser.add_argument("words", nargs="*")
    options = parser.parse_args()
    world, tests = mlxdist.init(timeout_s=120), loaded(options.backend)
    import torch
    import torch.distributed as c10d
    from torch.testing._internal import common_utils
    from torch.testing._internal.common_distributed import TEST_SKIPS

    skips = {skip.exit_code: skip.message for skip in TEST_SKIPS.values()}
    own = type("Own", (tests.DistributedTest._DistTestBase, common_utils.TestCase), {})
    own.rank, own.world_size = world.rank(), world.size()
    own._barrier = lambda self, *_, **__: mlxdist.barrier()
    names = sorted(name for name in dir(own) if name.startswith("test_"))
    counts = {"passed": 0, "skipped": 0, "failed": 0}
    folder = mlxdist.broadcast(np.frombuffer(tempfile.mkdtemp().encode().ljust(TEXT_NBYTES), np.uint8), 0)
    os.environ["TEMP_DIR"] = bytes(folder).decode().strip()
    for name in ("barrier", "test_dir", "init_dir"):
        Path(os.environ["TEMP_DIR"], name).mkdir(exist_ok=True)
    for name in names:
        if options.words and not any(word in name for word in options.words):
            continue
        torch.manual_seed(0)
        # These choose a model for the CPU or for GPUs by the name of the backend.
        tests.BACKEND = "gloo" if "no_sync" in name else options.backend
        timeout = datetime.timedelta(seconds=options.seconds)
        c10d.init_process_group(options.backend, timeout=timeout)
        case = own(name)
        case.file_name = str(Path(os.environ["TEMP_DIR"], name))
        what, why = outcome(case, name, skips)
        said = shared(world, f"{what}: {why}")
        with contextlib.suppress(Exception):
            c10d.destroy_process_group()
        mlxdist.barrier()
        worst = next((text for what in ("failed", "passed", "skipped") for text in said if text.startswith(what)), "?")
        rank = said.index(worst)
        counts[worst.partition(":")[0]] += 1
        if world.rank() == 0:
            place = f" (rank {rank})" if worst.startswith("failed") else ""
            print(f"{name:60} {worst}{place}", flush=True)
    if world.rank() == 0:
        print(", ".join(f"{count} {what}" for what, count in counts.items()), flush=True)


if __name__ == "__main__":
    main()
