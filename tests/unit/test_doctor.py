"""What doctor finds out in processes of their own: libraries that may crash or hang when they are opened."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from mlxdist.cli.doctor import environment
from mlxdist.cli.doctor.environment import Chosen
from mlxdist.mpi import search
from mlxdist.mpi.launchers import LibraryInfo

NOWHERE = search.Context({}, None, (), "/nowhere", "linux", {}.get)


def crashes(context: search.Context) -> Chosen:
    os.kill(os.getpid(), signal.SIGKILL)
    return Chosen()


def hangs(context: search.Context) -> Chosen:
    time.sleep(600)
    return Chosen()


@pytest.mark.parametrize(
    ("opening", "why"), [(crashes, "it crashed the process"), (hangs, "it had not opened after 1 s")]
)
def test_a_library_that_crashes_or_hangs(
    opening: Callable[[search.Context], Chosen], why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(environment, "OPEN_S", 1.0)
    began = time.monotonic()
    chosen = environment._in_child(opening, NOWHERE)
    assert time.monotonic() < began + 60
    assert not chosen.library
    assert why in chosen.tried[0][1]


def test_every_libmpi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the user's choice hides, too; each once, and those that the linker finds if there are any."""
    for name in ("a/lib/libmpi.so.40", "b/lib/libmpi.so.12"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()

    def choose(context: search.Context) -> Chosen:
        path = context.environ["MLXDIST_LIBMPI"]
        known = {
            f"{tmp_path}/a/lib/libmpi.so.40": f"{tmp_path}/a/lib/libmpi.so.40",
            "libmpi.so.40": "/linker/libmpi.so.40",
        }
        if path in known:
            return Chosen(library=LibraryInfo(known[path], "openmpi", "Open MPI v5.0.11"))
        return Chosen(tried=((path, "it is broken"),))

    monkeypatch.setattr(environment, "_choose_for_rank", choose)
    monkeypatch.setattr(search, "USUAL_PREFIXES", {"linux": (f"{tmp_path}/a",)})
    environ = {"MLXDIST_LIBMPI": "/chosen", "OPAL_PREFIX": f"{tmp_path}/a", "I_MPI_ROOT": f"{tmp_path}/b"}
    context = dataclasses.replace(NOWHERE, environ=environ, mapped=("/opened/libmpi.so.40",))
    found = [(path, chosen.found_via, bool(chosen.library)) for path, chosen in environment.every_libmpi(context)]
    assert found == [
        (f"{tmp_path}/a/lib/libmpi.so.40", "OPAL_PREFIX", True),
        (f"{tmp_path}/b/lib/libmpi.so.12", "I_MPI_ROOT", False),
        ("libmpi.so.40", "the dynamic linker", True),
    ]
