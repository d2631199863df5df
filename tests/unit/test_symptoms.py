"""README's table of symptoms quotes messages that the code prints."""

from __future__ import annotations

import re
from functools import cache

import mpis
import pytest

# Of launchers, the system and Python; or not a message.
FOREIGN = (
    "shared memory  unavailable",  # two columns of info()
    "attempt to run as root",
    "not enough slots",
    "binding processes to more cpus than are available",
    "unknown option",
    "file too short",
    "unsupported operand ... 'Group'",
    "Bus error",
    "rank 0 of 1",
)
SOURCES = [
    path for path in (mpis.ROOT / "mlxdist").rglob("*") if path.suffix in (".py", ".pyx", ".pxi", ".c", ".h", ".cpp")
]
HOLE = "\0"  # what a message says of the moment


def symptoms() -> list[str]:
    table = (mpis.ROOT / "README.md").read_text().partition("| symptom |")[2].partition("\n\n")[0]
    first_cells = [row.split(" | ")[0] for row in table.splitlines() if row.startswith("| ") and "`" in row]
    quoted = [quote for cell in first_cells for quote in re.findall(r"`([^`]+)`", cell)]
    return [quote for quote in quoted if quote not in FOREIGN and not quote.endswith("()") and " " in quote]


@cache
def messages() -> str:
    """All sources, with literals that stand one after the other joined, and their holes marked."""
    text = "\n".join(path.read_text() for path in SOURCES if path.name != "_core.c")
    text = re.sub(r'"\s*\n?\s*f?"', "", text)
    return re.sub(r"\{[^{}\n]*\}|%[-.0-9l]*[a-z]+", HOLE, text)


def pattern_of(words: str) -> str:
    """A word with a digit, a sign or an underscore may be what is filled in, and "has" may be "have"."""
    return r"\s+".join(
        rf"(?:{re.escape(word)}|\S*{HOLE}\S*)" if re.search(r"[\d_=]|^has$", word) else re.escape(word)
        for word in words.split()
    )


def test_the_table_is_read() -> None:
    assert len(symptoms()) > 12
    assert "has died" in symptoms()


@pytest.mark.parametrize("symptom", symptoms())
def test_a_symptom_is_what_the_code_says(symptom: str) -> None:
    for part in symptom.split("..."):
        assert re.search(pattern_of(part), messages()), part
        assert not re.search(pattern_of(f"{part} nonsense"), messages())
