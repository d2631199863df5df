"""What a report that leaves this machine must not contain: who and where the user is, and anything like a secret.

More is taken out than need be: a word that is missing can be asked for, and one that was sent cannot be taken back.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import platform
import pwd
import re
import socket
from collections.abc import Iterable, Iterator, Sequence

from mlxdist import config
from mlxdist.cli.launch.interfaces import Interface

HIDDEN = "(hidden)"
# Names of nobody, and of no host
NO_NAMES = ("root", "nobody", "localhost", "localhost.localdomain")
ANYWHERE = 5  # letters: a name of so many is also taken out of longer words; a shorter one may be a part of any

_SECRET_NAME = re.compile(r"TOKEN|SECRET|PASS|KEY|AUTH|CRED|COOKIE|_URI", re.IGNORECASE)
# What is hidden is the group.
_SECRETS = (
    re.compile(r"-----BEGIN [^-]*-----(.*?)(?:-----END|\Z)", re.DOTALL),
    re.compile(r"://([^/\s@]+)@"),
    re.compile(
        r"(?:token|secret|passw(?:or)?d|(?:api|access)[-_]?key)[\"']?\s*[=:]\s*(\"[^\"]*\"|'[^']*'|[^\s\"',;]+)",
        re.IGNORECASE,
    ),
    # of Hugging Face, GitHub, GitLab, PyPI, OpenAI, Slack, AWS; a JSON web token
    re.compile(r"\b((?:hf_|gh[a-z]_|github_pat_|glpat-|pypi-|sk-|xox[a-z]-|AKIA|ASIA|eyJ)[\w.-]{8,})"),
    # long, with letters and digits
    re.compile(r"\b((?=\w*\d)(?=\w*[A-Za-z])[\w+=]{32,})"),
)
# Of users and hosts that only other hosts know, or ~/.ssh/config
_STRANGERS = (
    (re.compile(r"(/(?:Users|home)/)(?!Shared\b)[^/\s:'\"]+"), r"\1<user>"),
    (re.compile(r"\S+@\S+(?=: Permission denied)"), "<user>@<host>"),
    (re.compile(r"(connect to host |resolve hostname )[^\s<:]+"), r"\1<host>"),
)
_ADDRESS = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?!\.?\d)")


def value_of(name: str, value: str) -> str:
    """The value of an environment variable, unless its name says that it is a secret."""
    return HIDDEN if value and (_SECRET_NAME.search(name) or name in config.SECRET) else value


def cleaned(text: str, hosts: Sequence[str], interfaces: Iterable[Interface]) -> str:
    """``text`` without secrets, and with placeholders for names and for addresses that are valid anywhere.

    Args:
        text: the whole report.
        hosts: names of hosts besides this one, as given by the user or reported by ranks.
        interfaces: those of this host.
    """
    for secret in _SECRETS:
        text = secret.sub(_without_group, text)
    named = _names(hosts, interfaces)
    names = {word.lower(): stands for word, stands in named if len(word) > 1 and word not in NO_NAMES}
    longest_first = sorted(names, key=len, reverse=True)
    pattern = re.compile("|".join(map(_pattern, longest_first)) or r"(?!)", re.IGNORECASE)
    text = pattern.sub(lambda found: names.get(found[0].lower(), HIDDEN), text)
    for stranger, stands in _STRANGERS:
        text = stranger.sub(stands, text)
    return _ADDRESS.sub(_without_address, text)


def _without_address(found: re.Match[str]) -> str:
    with contextlib.suppress(ValueError):
        return "<address>" if ipaddress.ip_address(found[0]).is_global else found[0]
    return found[0]


def _without_group(found: re.Match[str]) -> str:
    begin, end = (place - found.start() for place in found.span(1))
    return f"{found[0][:begin]}{HIDDEN}{found[0][end:]}"


def _pattern(word: str) -> str:
    return re.escape(word) if len(word) >= ANYWHERE else rf"(?<![A-Za-z0-9]){re.escape(word)}(?![A-Za-z0-9])"


def _names(hosts: Sequence[str], interfaces: Iterable[Interface]) -> Iterator[tuple[str, str]]:
    """Each word to be taken out, and what stands for it; where a word is several things, the last counts."""
    users = [*(os.environ.get(name, "") for name in config.USERS), *(host.rpartition("@")[0] for host in hosts)]
    homes = [os.path.expanduser("~")]
    try:
        entry = pwd.getpwuid(os.getuid())
    except KeyError:  # in a container, for example
        pass
    else:
        users += [entry.pw_name, entry.pw_gecos.partition(",")[0]]
        homes.append(entry.pw_dir)
    here = [socket.gethostname(), platform.node()]
    others = [other for host in hosts if (other := host.rpartition("@")[2]) not in here]
    numbered = [(host, f"<host {number}>") for number, host in enumerate(dict.fromkeys(others), 2)]
    for host, placeholder in (*numbered, *((host, "<host>") for host in here)):
        name, _, domain = host.partition(".")
        if not host.replace(".", "").isdecimal():
            if "." in domain:
                yield domain, "<domain>"
            yield name, placeholder
        yield host, placeholder
    for interface in interfaces:
        if ipaddress.ip_address(interface.address).is_global:
            yield interface.network.partition("/")[0], "<network>"
    for user in (*users, *map(os.path.basename, homes)):
        yield user, "<user>"
    for home in homes:
        yield home, "<home>"
        yield os.path.realpath(home), "<home>"
