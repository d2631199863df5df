"""A fact about this machine, and the command that fixes it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """A fact, and the command that fixes it.

    Attributes:
        severity: "error": ranks cannot work; "warning": they may not work, or not as expected; "note".
        fact: what was found, and its consequence.
        remedy: the command, and anything else to know about it.
    """

    severity: str
    fact: str
    remedy: str

    @classmethod
    def of(cls, error: str) -> Finding:
        """The finding in an error message of ours, ``[call] fact: remedy``."""
        fact, _, remedy = re.sub(r"^\[\w+\] ", "", error.strip()).rpartition(": ")
        return cls(ERROR, fact or remedy, remedy if fact else "")


def pip_install(arguments: str) -> str:
    """The command that installs into this Python's environment."""
    return f"{sys.executable} -m pip install {arguments}"
