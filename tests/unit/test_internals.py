"""docs/internals.md names files and functions that exist, and the values that constants have."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import mpis
import pytest

TEXT = (mpis.ROOT / "docs" / "internals.md").read_text()
PAGE = re.sub(r"\s+", " ", TEXT)
ROWS = [[cell.strip() for cell in line[1:-1].split("|")] for line in TEXT.splitlines() if line.startswith("| ")]
FOLDERS = (
    "",
    "mlxdist",
    "mlxdist/compiled",
    "mlxdist/core",
    "mlxdist/core/shm",
    "mlxdist/core/mpi",
    "mlxdist/core/net",
    "mlxdist/core/group",
    "mlxdist/core/shims",
    "mlxdist/core/xla",
    "mlxdist/jax",
    "include/mlxdist",
    "include/mlxdist/shims",
    "include/mlxdist/xla",
)
SUFFIX = r"\.(?:py|pxi|c|cpp|h|md|toml)"
UNITS = {"KiB": 1 << 10, "MiB": 1 << 20}


def file_of(name: str) -> Path:
    for folder in FOLDERS:
        path: Path = mpis.ROOT / folder / name
        if path.is_file():
            return path
    raise AssertionError(f"there is no {name}")


@pytest.mark.parametrize("name", sorted(set(re.findall(rf"`([\w./]+{SUFFIX})`", PAGE))))
def test_file_exists(name: str) -> None:
    assert file_of(name)


@pytest.mark.parametrize(
    ("names", "file"), re.findall(rf"((?:`[\w.]+\(\)`(?:, | and )?)+) in `([\w./]+{SUFFIX})`", PAGE)
)
def test_function_is_in_its_file(names: str, file: str) -> None:
    for name in re.findall(r"`(?:\w+\.)*(\w+)\(\)`", names):
        assert re.search(rf"\b{name}\b", file_of(file).read_text()), f"{file} has no {name}"


@pytest.mark.parametrize(
    ("file", "name"),
    [
        (file[1], name)
        for row in ROWS
        if len(row) == 3 and (file := re.fullmatch(rf"`([\w./]+{SUFFIX})`", row[1]))
        for name in re.findall(r"`(?:\w+\.)*(\w+)(?:\(\))?`", row[2].partition(";")[0].partition(" in `")[0])
    ],
)
def test_answer_is_in_its_file(file: str, name: str) -> None:
    assert re.search(rf"\b{name}\b", file_of(file).read_text()), f"{file} has no {name}"


def constants() -> Iterator[tuple[str, str, str]]:
    """Those whose row has as many names as values."""
    for names_cell, values_cell, files_cell, *_ in (row for row in ROWS if len(row) == 5):
        names, files = re.findall(r"`([A-Z_]+)`", names_cell), re.findall(r"`([\w./]+)`", files_cell)
        values = re.findall(r"\d[\d.]*(?: \w+)?", values_cell)
        if files and len(names) == len(values) and " of `" not in names_cell and not files[0].endswith("/"):
            yield from zip(names, values, files if len(files) > 1 else files * len(names), strict=True)


@pytest.mark.parametrize(("name", "value", "file"), [*constants()])
def test_constant_has_this_value(name: str, value: str, file: str) -> None:
    written = re.search(rf"\b{name} =\s+([\d.]+)(?: << (\d+))?", file_of(file).read_text())
    assert written, f"{file} has no {name}"
    number, _, unit = value.partition(" ")
    assert float(written[1]) * 2 ** int(written[2] or 0) == float(number) * UNITS.get(unit, 1)
