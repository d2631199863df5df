"""Debian's packages in a folder, without root: apt downloads them and what they need, dpkg-deb unpacks them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path


class Unavailable(Exception):
    """Why there are no packages."""


def asked(*command: str | Path, **environ: str) -> str:
    """What a command prints."""
    try:
        finished = subprocess.run(command, env=os.environ | environ, capture_output=True, text=True, check=True)
    except FileNotFoundError:
        raise Unavailable(f"there is no {command[0]} here") from None
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"{' '.join(map(str, command[:2]))} failed: {error.stderr.strip()[-300:]}") from None
    return finished.stdout


def mirror() -> str:
    """Where this machine gets Debian's packages from."""
    lines = asked("apt-get", "indextargets", "--format", "$(ORIGIN) $(CODENAME) $(REPO_URI)", "Created-By: Packages")
    for origin, codename, address in map(str.split, filter(None, lines.splitlines())):
        if origin == "Debian" and "-" not in codename:
            return address
    raise Unavailable("this machine gets no packages from Debian")


def unpack(root: Path, suite: str, architecture: str, *packages: str, alone: tuple[str, ...] = ()) -> None:
    """Unpack into ``root`` the packages and all that they depend on, and those of ``alone`` without that.

    What has been unpacked there before is left as it is. ``root`` is for one suite and architecture.
    """
    state = root.with_name(f"{root.name}.apt")
    archives = state / "archives"
    for folder in (root, state / "lists" / "partial", archives / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    (state / "status").touch()  # nothing is installed
    (state / "sources.list").write_text(f"deb [arch={architecture}] {mirror()} {suite} main\n")
    (state / "apt.conf").write_text(
        f"""
        APT::Architecture "{architecture}"; APT::Architectures "{architecture}"; APT::Sandbox::User "root";
        Dir::State::Lists "{state}/lists"; Dir::State::Status "{state}/status"; Dir::Cache "{state}";
        Dir::Etc::SourceList "{state}/sources.list"; Dir::Etc::SourceParts "/dev/null"; Debug::NoLocking "true";
        """
    )
    configured = {"APT_CONFIG": str(state / "apt.conf")}
    asked("apt-get", "update", **configured)
    asked("apt-get", "install", "--yes", "--download-only", "--no-install-recommends", *packages, **configured)
    if alone:
        asked("env", "-C", archives, "apt-get", "download", *alone, **configured)
    for package in sorted(archives.glob("*.deb")):
        unpacked = state / f"{package.stem}.unpacked"
        if not unpacked.exists():
            asked("dpkg-deb", "--extract", package, root)
            unpacked.touch()
