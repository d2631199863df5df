"""What a report of doctor must not contain, and what it must still contain."""

from __future__ import annotations

import os
import platform
import pwd
import socket
from pathlib import Path
from types import SimpleNamespace

import pytest

from mlxdist import config
from mlxdist.cli.doctor import privacy, report
from mlxdist.cli.doctor.diagnosis import Diagnosis
from mlxdist.cli.doctor.environment import Environment
from mlxdist.cli.launch.interfaces import Interface
from mlxdist.mpi import search

RANDOM = "Zm9vYmFyMTIzNDU2Nzg5MGFiY2RlZmdoaWprbG1ubw"


@pytest.fixture(autouse=True)
def jane(monkeypatch: pytest.MonkeyPatch) -> None:
    """The user jane.doe on her Mac."""
    entry = SimpleNamespace(pw_name="jane.doe", pw_gecos="Jane Q. Doe,,,", pw_dir="/Users/jane.doe")
    monkeypatch.setattr(pwd, "getpwuid", lambda uid: entry)
    monkeypatch.setattr(socket, "gethostname", lambda: "Janes-MacBook-Pro.corp.example.com")
    monkeypatch.setattr(platform, "node", lambda: "mbp")
    for name, value in {"HOME": "/Volumes/work/jd", "USER": "jane.doe", "LOGNAME": "jdoe7", "SUDO_USER": ""}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/Users/jane.doe/env/bin/python", "<home>/env/bin/python"),
        ("/Volumes/work/jd/x:/Volumes/work/jd", "<home>/x:<home>"),
        ("/scratch/JANE.DOE/x /tmp/jane.doe_1", "/scratch/<user>/x /tmp/<user>_1"),
        ("of Jane Q. Doe", "of <user>"),
        ("jdoe7's; jd's jd_x adjdx", "<user>'s; <user>'s <user>_x adjdx"),
        ("rank 0 on Janes-MacBook-Pro.corp.example.com", "rank 0 on <host>"),
        ("janes-macbook-pro.local, gpu9.corp.example.com", "<host>.local, gpu9.<domain>"),
        ("mbp mbps [mbp:12] mbp_0", "<host> mbps [<host>:12] <host>_0"),
        (
            "ssh bob@node7: node7, 10.0.0.9:22, node8 is busy",
            "ssh <user>@<host 2>: <host 2>, <host 3>:22, node8 is busy",
        ),
        ("en0 17.253.144.10 in 17.253.144.0/24, en1 192.168.0.5", "en0 <address> in <network>/24, en1 192.168.0.5"),
        ("node9 (eth0 141.5.3.1) to 141.5.3.2:1234, 1.2.3.4.5", "node9 (eth0 <address>) to <address>:1234, 1.2.3.4.5"),
        ("/Users/other/bin /home/other:/Users/Shared/x", "/Users/<user>/bin /home/<user>:/Users/Shared/x"),
        ("gpu: bob@gpu7.example.net: Permission denied (key)", "gpu: <user>@<host>: Permission denied (key)"),
        ("ssh: connect to host gpu7.lab port 22: refused", "ssh: connect to host <host> port 22: refused"),
        ("root, nobody, a localhost and 127.0.0.1 stay", "root, nobody, a localhost and 127.0.0.1 stay"),
        ("https://bob:hunter2@pypi.example.org/simple", "https://(hidden)@pypi.example.org/simple"),
        ('--api-key=abc PASSWORD: \'x y\' "token": "t0"', '--api-key=(hidden) PASSWORD: (hidden) "token": (hidden)'),
        ("hf_abcdefghijk and ghp_0123456789a", "(hidden) and (hidden)"),
        (f"X={RANDOM}=", "X=(hidden)"),
        ("-----BEGIN PRIVATE KEY-----\nMIIE\nvQ\n-----END", "-----BEGIN PRIVATE KEY-----(hidden)-----END"),
        (
            "libmpi.so.40 /opt/local/lib/openmpi-clang17/libmpi.40.dylib, repo rev: v5.0.11rc1, x86_64-linux-gnu",
            "libmpi.so.40 /opt/local/lib/openmpi-clang17/libmpi.40.dylib, repo rev: v5.0.11rc1, x86_64-linux-gnu",
        ),
    ],
)
def test_cleaned(text: str, clean: str) -> None:
    hosts = ["mbp", "bob@node7", "10.0.0.9", "localhost", "a"]
    there = [Interface("en0", "17.253.144.10", "17.253.144.0/24", True, False)]
    there.append(Interface("en1", "192.168.0.5", "192.168.0.0/24", True, False))
    assert privacy.cleaned(text, hosts, there) == clean


def test_without_a_user_and_a_home(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container, where the user has a number only."""
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)
    for name in config.USERS:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", "/")
    assert privacy.cleaned("/usr/lib of jane.doe on mbp", [], []) == "/usr/lib of jane.doe on <host>"


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("MLXDIST_TIMEOUT_S", True),
        ("OMPI_MCA_btl_tcp_if_include", True),
        ("FI_PROVIDER_PATH", True),
        ("PMIX_SECURITY_MODE", True),
        ("MLX_HF_TOKEN", False),
        ("OMPI_MCA_secret", False),
        ("PMIX_SERVER_URI41", False),
        ("MLXDIST_LAUNCH", False),
        ("I_MPI_AUTH", False),
    ],
)
def test_variables_that_are_shown(name: str, shown: bool) -> None:
    assert name in config.reported({name: "x"})
    assert privacy.value_of(name, "x") == ("x" if shown else privacy.HIDDEN)


def test_variables_that_are_left_out() -> None:
    others = (
        "HOME",
        "USER",
        "SSH_CLIENT",
        "SSH_AUTH_SOCK",
        "AWS_SESSION_TOKEN",
        "HF_TOKEN",
        "PS1",
        "OLDPWD",
        "HISTFILE",
    )
    assert config.reported(dict.fromkeys(others, "x")) == {}


def test_values_that_differ_between_ranks() -> None:
    """Doctor prints them; in a report secrets are hidden there, too."""
    differences = {"MLX_TOKEN": {"hunter2": [0], "": [1]}, "PATH": {"/Users/jane.doe/bin": [0], "/bin": [1]}}
    diagnosis = Diagnosis({"libmpi": "/opt/libmpi.so"}, [], [], hosts=["mbp", "node7"], differences=differences)
    context = search.Context({}, None, (), "/nowhere", "unknown", {}.get)
    text = report.to_send(diagnosis, Environment(context, (), (), None, "", "", ()))
    assert "hunter" not in text
    assert "rank 0 (<host>): (hidden) 1\n" in text
    assert "rank 1 (<host 2>): (not set)\n" in text
    assert "rank 0 (<host>): <home>/bin\n" in text
    assert "rank 1 (<host 2>): /bin\n" in text


def test_the_report_of_a_doctor_that_failed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What could not be found out does not keep the rest from being said."""
    monkeypatch.setenv("MLXDIST_QUIET", "on /Users/jane.doe")
    monkeypatch.setattr(platform, "platform", {}.popitem)
    try:
        raise NotImplementedError(f"no {os.sep}Users/jane.doe")
    except NotImplementedError as error:
        text = report.of_failure(error, [])
    assert "NotImplementedError: no <home>\n" in text
    assert "popitem(): dictionary is empty" in text
    assert "MLXDIST_QUIET=on <home>\n" in text
    assert "jane" not in text.lower()
