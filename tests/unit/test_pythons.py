"""tests/pythons.py says why a Python cannot be had, and does not take one version for another."""

from __future__ import annotations

import shutil
from pathlib import Path

import debian
import pytest
import pythons


def test_one_without_the_gil_is_not_in_debian() -> None:
    with pytest.raises(debian.Unavailable, match=r"^no python3\.99t with headers on PATH.*Debian has no free-threaded"):
        pythons.found("3.99t")


def test_a_machine_without_debians_tools(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(debian.Unavailable, match=r"^no python3\.99 with headers .*, and there is no dpkg here$"):
        pythons.found("3.99")


def test_the_name_does_not_decide(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "python3.99").write_text('#!/bin/sh\nexec python3 "$@"\n')
    (tmp_path / "python3.99").chmod(0o755)
    (tmp_path / "python3").symlink_to(shutil.which("python3") or "/usr/bin/python3")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert pythons.installed("3.99") is None
