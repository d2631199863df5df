"""Whether the hosts of a job can be reached by ssh without a password, and have what the ranks need."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

CONNECT_S = 5
# A part of what ssh says, and what to do about it
REMEDIES = (
    ("could not resolve", "correct the name, or give its address in /etc/hosts or ~/.ssh/config"),
    ("permission denied", "ssh-copy-id {host}, so that ssh asks for no password"),
    ("host key verification failed", "ssh {host} once by hand, and accept its key"),
    ("host identification has changed", "ssh-keygen -R {host}, if that machine was installed anew"),
    ("connection refused", "start sshd on {host}"),
)
ABSENT = "no {} there: every host needs it at the same path"
OTHERWISE = "see that {host} is up and that ssh {host} works by hand"


def is_here(name: str) -> bool:
    """Whether ``name`` is this machine, to which no launcher needs ssh."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((name, 0))
        return True
    return False


def failures(names: Sequence[str], needed: Sequence[str] = ()) -> dict[str, str]:
    """Why ranks cannot be started on those of ``names`` where they cannot, and what to do; all are asked at once.

    Args:
        names: hosts; this machine among them is asked without ssh.
        needed: paths that each host must have.
    """
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as threads:
        answers = threads.map(lambda name: _failure(name, needed), names)
        return {name: why for name, why in zip(names, answers, strict=True) if why}


def _failure(host: str, needed: Sequence[str]) -> str | None:
    if is_here(host):
        absent = [path for path in needed if not os.path.exists(path)]
        return ABSENT.format(absent[0]) if absent else None
    missing = "; ".join(f"[ -e {shlex.quote(path)} ] || echo {shlex.quote(path)}" for path in needed)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}"]
    try:
        answer = subprocess.run(
            ["ssh", *options, host, f"{missing or ':'}; exit 0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=3 * CONNECT_S,
        )
    except FileNotFoundError:
        return "there is no ssh here: install an OpenSSH client"
    except subprocess.TimeoutExpired:
        return f"ssh did not end within {3 * CONNECT_S} s: {OTHERWISE.format(host=host)}"
    if answer.returncode:
        said = answer.stderr.strip()
        remedy = next((text for part, text in REMEDIES if part in said.lower()), OTHERWISE)
        last = said.splitlines()[-1].strip() if said else f"ssh ended with status {answer.returncode}"
        return f"{last}: {remedy.format(host=host)}"
    # A login script may have printed something before.
    absent = [path for path in answer.stdout.splitlines() if path in needed]
    return ABSENT.format(absent[0]) if absent else None
