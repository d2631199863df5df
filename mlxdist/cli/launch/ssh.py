"""Whether hosts can be reached by ssh without a password, and have what the ranks need."""

from __future__ import annotations

import contextlib
import shlex
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

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


@dataclass(frozen=True)
class Answer:
    """Why a rank cannot be started on a host, with the remedy, or nothing; and what the command there printed."""

    failure: str = ""
    printed: str = ""


def ask(names: Sequence[str], needed: Sequence[str] = (), command: str = "") -> dict[str, Answer]:
    """Whether ranks can be started on hosts, and what ``command`` prints there, whatever its status.

    Args:
        names: hosts; they are asked in parallel, this machine without ssh.
        needed: paths that each of them must have, beside those of mlxdist.
        command: for the shell.
    """
    every = [sys.executable, rank.__file__, *needed]
    with ThreadPoolExecutor(max_workers=max(1, len(names))) as threads:
        return dict(zip(names, threads.map(lambda name: _ask(name, every, command), names), strict=True))


def failures(answers: Mapping[str, Answer]) -> dict[str, str]:
    """Of the hosts on which no rank can be started: the reason and the remedy."""
    return {name: answer.failure for name, answer in answers.items() if answer.failure}


def shell_on(host: str) -> list[str]:
    """The command that runs a shell command on ``host``, its last argument."""
    options = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_TIMEOUT_S}"]
    return ["/bin/sh", "-c"] if is_local(host) else ["ssh", *options, host]


def _ask(host: str, needed: Sequence[str], command: str) -> Answer:
    tests = "; ".join(f"[ -e {shlex.quote(path)} ] || echo {shlex.quote(path)}" for path in needed)
    try:
        done = subprocess.run(
            [*shell_on(host), f"{tests}; {command or ':'}; exit 0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=TIMEOUT_S,
        )
    except FileNotFoundError:
        return Answer("ssh is not installed here: install an OpenSSH client")
    except subprocess.TimeoutExpired:
        return Answer(f"ssh took more than {TIMEOUT_S} s: {OTHERWISE.format(host=host)}")
    if done.returncode:
        printed = done.stderr.strip()
        remedy = next((text for part, text in REMEDIES if part in printed.lower()), OTHERWISE)
        fact = printed.splitlines()[-1].strip() if printed else f"ssh ended with status {done.returncode}"
        return Answer(f"{fact}: {remedy.format(host=host)}")
    # A login script may have printed something before.
    missing = [path for path in done.stdout.splitlines() if path in needed]
    return Answer(MISSING.format(missing[0]) if missing else "", done.stdout)
