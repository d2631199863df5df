"""Whether hosts can be reached by ssh without a password, and have what the ranks need."""

from __future__ import annotations

import contextlib
import os
import shlex
import socket
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlxdist.cli.launch import rank

CONNECT_TIMEOUT_S = 5
TIMEOUT_S = 3 * CONNECT_TIMEOUT_S
# A part of what ssh prints, and what to do about it
REMEDIES = (
    ("could not resolve", "correct the name, or add its address to /etc/hosts or ~/.ssh/config"),
    ("permission denied", "ssh-copy-id {host}, so that ssh asks for no password"),
    ("host key verification failed", "ssh {host} once by hand, and accept its key"),
    ("host identification has changed", "ssh-keygen -R {host}, if that machine was reinstalled"),
    ("connection refused", "start sshd on {host}"),
)
OTHERWISE = "check that {host} is up and that ssh {host} works by hand"
MISSING = "{} is missing: every host needs it at the same path"


def is_local(name: str) -> bool:
    """Whether ``name`` is this machine, for which launchers do not use ssh."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.bind((name, 0))
        return True
    return False


def unusable(names: Sequence[str], *needed: str | None) -> dict[str, str]:
    """The hosts on which a rank cannot be started, each with the reason and the remedy.

    Args:
        names: hosts; they are checked in parallel, this machine without ssh.
        needed: paths that each of them must have, beside those of mlxdist.
    """
    return failures(names, [path for path in (sys.executable, rank.__file__, *needed) if path])


def failures(names: Sequence[str], needed: Sequence[str] = ()) -> dict[str, str]:
    """The same for just the paths in ``needed``."""
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as threads:
        answers = threads.map(lambda name: _failure(name, needed), names)
        return {name: why for name, why in zip(names, answers, strict=True) if why}


def _failure(host: str, needed: Sequence[str]) -> str | None:
    if is_local(host):
        missing = [path for path in needed if not os.path.exists(path)]
        return MISSING.format(missing[0]) if missing else None
    tests = "; ".join(f"[ -e {shlex.quote(path)} ] || echo {shlex.quote(path)}" for path in needed)
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    try:
        answer = subprocess.run(
            ["ssh", *options, host, f"{tests or ':'}; exit 0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        return "ssh is not installed here: install an OpenSSH client"
    except subprocess.TimeoutExpired:
        return f"ssh took more than {TIMEOUT_S} s: {OTHERWISE.format(host=host)}"
    if answer.returncode:
        printed = answer.stderr.strip()
        remedy = next((text for part, text in REMEDIES if part in printed.lower()), OTHERWISE)
        fact = printed.splitlines()[-1].strip() if printed else f"ssh ended with status {answer.returncode}"
        return f"{fact}: {remedy.format(host=host)}"
    # A login script may have printed something before.
    missing = [path for path in answer.stdout.splitlines() if path in needed]
    return MISSING.format(missing[0]) if missing else None
