"""`make wheels`: a wheel in dist/ for each version of Python and each target that has one."""

import logging
import os
import re
import subprocess
import sys
import tempfile
from distutils.core import run_setup
from pathlib import Path

import check
import toolchain
from targets import PYTHONS, TARGETS, Target
from wheel.wheelfile import WheelFile

DIST = toolchain.ROOT / "dist"
WHEEL = """\
Wheel-Version: 1.0
Generator: make wheels
Root-Is-Purelib: false
Tag: {}
"""


def lay_out(folder: Path) -> Path:
    """Put the Python files and the metadata into ``folder``, as setuptools does; return the folder of the metadata."""
    os.chdir(toolchain.ROOT)
    where = ["egg_info", "--egg-base", folder, "build_py", "--build-lib", folder, "dist_info", "--output-dir", folder]
    logging.disable(logging.WARNING)  # of patterns for the sdist
    run_setup("setup.py", ["--quiet", *map(str, where)])
    (metadata,) = folder.glob("*.dist-info")
    return metadata


def write(metadata: Path, version: str, target: Target, binaries: list[Path]) -> Path:
    """What is laid out beside ``metadata``, with these shared objects, under the tags of ``version`` and ``target``."""
    python = f"cp{version.replace('.', '')}"
    tag = f"{python}-{python}-{target.platform}"
    (metadata / "WHEEL").write_text(WHEEL.format(tag))
    path = DIST / f"{metadata.stem}-{tag}.whl"
    with WheelFile(path, "w") as wheel:
        wheel.write_files(str(metadata.parent))
        for binary in binaries:
            wheel.write(str(binary), f"mlxdist/{binary.name}")
    return path


def audit(wheel: Path, target: Target) -> None:
    """Raise Failed unless auditwheel says that ``wheel`` runs wherever its tag promises."""
    command = [sys.executable, "-m", "auditwheel", "show", str(wheel)]
    said = subprocess.run(command, capture_output=True, text=True).stdout
    tag = re.search(r'platform tag: "manylinux_2_(\d+)_(\w+)"', " ".join(said.split()))
    oldest, processor = re.findall(r"manylinux_2_(\d+)_(\w+)", target.platform)[0]
    if not tag or int(tag[1]) > int(oldest) or tag[2] != processor:
        raise toolchain.Failed(f"{wheel.name}: {said}")


def main() -> None:
    """Build and check them all."""
    DIST.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        metadata = lay_out(Path(folder))
        for target in (target for target in TARGETS if target.has_wheel):
            built = [check.build(target, extension, *PYTHONS) for extension in toolchain.extensions(target)]
            for version in PYTHONS:
                wheel = write(metadata, version, target, [of_version[version] for of_version in built])
                if not target.is_macos:
                    audit(wheel, target)
                print(wheel.relative_to(toolchain.ROOT), flush=True)


if __name__ == "__main__":
    try:
        main()
    except toolchain.Failed as failed:
        sys.exit(str(failed))
