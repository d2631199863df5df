"""What a program sees of mlxdist before it has started: names, info(), annotations, the version."""

from __future__ import annotations

import builtins
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import mpis
import pytest

import mlxdist as dist


def test_import_star_leaves_the_built_in_timeout_error_alone() -> None:
    names: dict[str, object] = {}
    exec("from mlxdist import *\nseen = TimeoutError", names)
    assert names["seen"] is builtins.TimeoutError
    assert issubclass(dist.TimeoutError, builtins.TimeoutError)
    assert not set(dist.__all__) & set(dir(builtins))


def test_info_is_a_copy() -> None:
    changed = dist.info()
    changed.backend = "changed"
    changed.tried.append(("a place", "a reason"))
    assert "changed" not in str(dist.info())
    assert "a place" not in str(dist.info())
    assert dist.info() == dist.info()


PROGRAM = """
import mlxdist
from mlxdist import Group
from mlxdist.world import GroupLike

class GroupOfMLX:  # as its stub has it (0.32.4)
    def rank(self) -> int: ...
    def size(self) -> int: ...
    def split(self, color: int, key: int = -1) -> GroupOfMLX: ...

def call(group: GroupLike | None) -> None: ...

def check(ours: Group, theirs: GroupOfMLX) -> None:
    call(None)
    call(ours)
    call(theirs)
    mlxdist.all_sum(1.0, group=theirs)
    call(ours.size())
"""


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_type_checker_takes_groups_of_both_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "program.pyi"
    path.write_text(PROGRAM)
    command = [sys.executable, "-m", "mypy", "--config-file", "pyproject.toml", "--cache-dir", str(tmp_path), str(path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=mpis.ROOT, timeout=120)
    errors = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert len(errors) == 1, done.stdout
    assert f":{len(PROGRAM.splitlines())}: " in errors[0]
    assert 'has incompatible type "int"; expected "GroupLike | None"' in errors[0]


def test_the_version_is_written_alike_in_both_places() -> None:
    (version,) = re.findall(r'^version = "(.*)"$', (mpis.ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert dist.__version__ == version
