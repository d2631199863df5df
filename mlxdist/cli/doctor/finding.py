"""A fact about this machine, and the command that mends it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass

ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True)
class Finding:
    """A fact, and the command that mends it.

    Attributes:
        severity: "error": ranks cannot work so; "warning": they may not, or not as one would think; "note".
        fact: what is so, and what comes of it.
        remedy: the command, and what else there is to say of it.
    """

    severity: str
    fact: str
    remedy: str

    @classmethod
    def of(cls, error: str) -> Finding:
        """What an exception of ours says: ``[call] fact: remedy``."""
        fact, _, remedy = re.sub(r"^\[\w+\] ", "", error.strip()).rpartition(": ")
        return cls(ERROR, fact or remedy, remedy if fact else "")


def pip_install(arguments: str) -> str:
    """The command that installs into this Python's environment."""
    return f"{sys.executable} -m pip install {arguments}"
