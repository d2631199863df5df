"""A copy of this checkout, to be built or changed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import mpis


def copy(tree: Path) -> None:
    """Copy the files that git tracks or would add.

    Raises:
        OSError, subprocess.CalledProcessError: there is no git, or to git this is not a checkout.
    """
    listed = ["git", "-C", str(mpis.ROOT), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, capture_output=True, text=True, check=True).stdout.split("\0")
    for name in filter(None, names):
        if (mpis.ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(mpis.ROOT / name, tree / name)
