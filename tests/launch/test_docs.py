"""The programs in README.md and docs/, in one process and on two ranks."""

from __future__ import annotations

import re

import mpis
import pytest
from conftest import Ranks, needs

from mlxdist import config

README = mpis.ROOT / "README.md"
PAGES = {path.name: path.read_text() for path in (README, *sorted((mpis.ROOT / "docs").glob("*.md")))}
PROGRAMS = {
    f"{name}-{number}": program
    for name, text in PAGES.items()
    for number, program in enumerate(re.findall(r"^```python\n(.*?)^```$", text, re.M | re.S))
}


@pytest.mark.parametrize("n", [1, 2], ids=["alone", "2-ranks"])
@pytest.mark.parametrize("name", PROGRAMS)
def test_program(one: mpis.MPI, ranks: Ranks, name: str, n: int) -> None:
    program = PROGRAMS[name]
    compile(program, name, "exec")
    needs(program)
    finished = ranks(one if n > 1 else None, n, program)
    assert finished.status == 0, finished.output


@pytest.mark.parametrize(("number", "example"), [(0, "seed.py"), (1, "seed_numpy.py")])
def test_the_readme_has_the_first_programs(number: int, example: str) -> None:
    assert PROGRAMS[f"README.md-{number}"] in (mpis.ROOT / "examples" / example).read_text()


def test_the_readme_lists_the_variables() -> None:
    rows = re.findall(r"^\| `(MLXDIST_\w+)` \| *(.*?) *\| (.*) \|$", PAGES["README.md"], re.M)
    assert rows == [(variable.name, variable.default, variable.meaning) for variable in config.USER_VARIABLES]
