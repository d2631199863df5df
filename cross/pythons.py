"""The interpreters of this machine, and the headers of each version of Python."""

import os
import shutil
import subprocess
import tempfile
from functools import cache
from pathlib import Path

# Besides PATH: where pyenv and uv keep them.
FOLDERS = (".pyenv/versions/{}*/bin", ".local/share/uv/python/cpython-{}*/bin")
# Its folder of headers, and Debian's name for the system, which is part of the path of its pyconfig.h.
ASK = "import sysconfig; print(sysconfig.get_path('include'), sysconfig.get_config_var('MULTIARCH'))"


@cache
def find(version: str) -> dict[Path, Path]:
    """The interpreters of ``version``, such as "3.12", that run here, by their folders of headers."""
    places = [Path(folder) for folder in os.get_exec_path()]
    for folder in FOLDERS:
        places += sorted(Path.home().glob(folder.format(version)))
    found: dict[Path, Path] = {}
    for python in (place / f"python{version}" for place in places):
        # pyenv has commands for versions that are not chosen: they fail
        if (
            python.exists()
            and not (asked := subprocess.run([python, "-c", ASK], capture_output=True, text=True)).returncode
        ):
            found.setdefault(Path(asked.stdout.split()[0]), python)
    return found


def headers(version: str, folder: Path) -> bool:
    """Copy the headers of ``version`` to ``folder``, from an interpreter or Debian's package; whether there are any.

    They are those of 64-bit Linux. Each system has another pyconfig.h, but of what the headers and Cython ask of it the
    sizes are the same on all of ours, and the rest all of them have.
    """
    for include in find(version):
        if (include / "Python.h").exists():
            return _copy(include, folder)
    with tempfile.TemporaryDirectory() as unpacked:
        _unpack_debian(f"libpython{version}-dev", Path(unpacked))
        include = Path(unpacked, "usr", "include", f"python{version}")
        return include.exists() and _copy(include, folder)


def _copy(include: Path, folder: Path) -> bool:
    shutil.copytree(include, folder, dirs_exist_ok=True)
    for real in include.parent.glob(f"*-linux-gnu/{include.name}/pyconfig.h"):  # Debian's own only includes it
        shutil.copy(real, folder)
    return True


def _unpack_debian(package: str, folder: Path) -> None:
    """Download ``package`` of Debian unstable, which has the latest Pythons, and unpack it; nothing is installed."""
    if not shutil.which("apt-get"):
        return
    with tempfile.TemporaryDirectory() as apt:
        asked = ["apt-get", "indextargets", "--format", "$(SITE)", "Created-By: Packages", "Origin: Debian"]
        sites = subprocess.run(asked, capture_output=True, text=True).stdout.split()
        source = Path(apt, "sources.list")
        source.write_text(f"deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] {sites[0]} unstable main\n")
        own = {
            "Dir::Etc::SourceList": source,
            "Dir::Etc::SourceParts": "-",
            "Dir::State": apt,
            "Dir::Cache": apt,
            "APT::Sandbox::User": "root",
        }
        settings = [
            f"-o{name}={value}" for name, value in (own | {"Dir::State::status": "/var/lib/dpkg/status"}).items()
        ]
        for step in (["update"], ["download", package]):
            subprocess.run(["apt-get", "-qq", *settings, *step], cwd=apt, check=True)
        for downloaded in Path(apt).glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", downloaded, folder], check=True)
