"""`make crosscheck`: the extensions compile and link for every target, and have the names that they must have.

What it cannot see is whether a system does at run time what is expected of it.
"""

import re
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import binaries
import toolchain
from setuptools import Extension
from targets import CXX, TARGETS, Target

FROM_PYTHON = re.compile(r"_?Py[A-Z_]\w*")
FROM_MPI = re.compile(r"(P?MPI|MPIR|ompi|opal|mpich)_\w+")
FROM_SYSTEM = re.compile(
    r"lib(c|m|dl|rt|pthread|stdc\+\+|gcc_s)\.so[.\d]*|ld-linux[\w.-]+|/usr/lib/lib(System\.B|c\+\+\.1)\.dylib"
)
CXX_NAMES = {name for group in CXX.values() for name in group.split()}
LINKERS = {"_init", "_fini", "__dso_handle", "_mh_dylib_header"}  # zig 0.17 exports them


def faults(target: Target, path: Path, files: Iterable[Path], marked: set[str]) -> Iterator[str]:
    """What is wrong with ``path``, linked of the object ``files``; ``marked``: names that are to be exported."""
    objects = [binaries.read(file) for file in files]
    wanted = {name for made in objects for name in made.defined if name in marked}
    needed = {name for made in objects for name in made.undefined}
    binary = binaries.read(path)
    exported = binary.defined - LINKERS
    yield from (f"{name} is not exported" for name in sorted(wanted - exported))
    yield from (f"{name} is exported" for name in sorted(exported - wanted))
    yield from (f"{name} is not the system's" for name in sorted(needed & CXX_NAMES - binary.undefined.keys()))
    yield from (f"it needs {name}" for name in binary.libraries if not FROM_SYSTEM.fullmatch(name))
    has_places = target.is_macos or "-gnu" in target.name  # musl's names have no versions
    for name, place in sorted(binary.undefined.items()):
        if FROM_MPI.fullmatch(name):
            yield f"{name} is undefined: libmpi is not linked"
        elif has_places and place == binaries.ANYWHERE and not FROM_PYTHON.fullmatch(name):
            yield f"{name} is undefined: neither Python nor {target.name} has it"
    if target.is_macos:
        right = {"namespace": "two-level", "install name": f"@rpath/{path.name}", "oldest system": "11.0"}
        if "aarch64" in target.name:
            right["signed"] = True  # it would not be loaded
        for what, value in right.items():
            if binary.header[what] != value:
                yield f"{what}: {binary.header[what]}, not {value}"


def build(target: Target, extension: Extension, *versions: str) -> dict[str, Path]:
    """The shared object for each version of Python; raises Failed with all that is wrong."""
    toolchain.compile_for(target, extension, *versions)
    made = {version: toolchain.link(target, extension, version) for version in versions}
    marked = toolchain.marked_for_export(target, extension, versions[0])
    found = []
    for version, path in made.items():
        files = toolchain.objects(target, extension, version).values()
        found += [f"{target.name}: {path.name}: {fault}" for fault in faults(target, path, files, marked)]
    if found:
        raise toolchain.Failed("\n".join(found))
    return made


def main(names: list[str]) -> int:
    """Check the targets of these names, or all."""
    version = "{}.{}".format(*sys.version_info)
    status = 0
    for target in TARGETS:
        if names and target.name not in names:
            continue
        began = time.monotonic()
        verdict = "ok"
        for extension in toolchain.extensions(target):
            try:
                build(target, extension, version)
            except toolchain.Failed as failed:
                print(failed)
                verdict, status = "FAILED", 1
        print(f"{target.name}: {verdict}, {time.monotonic() - began:.0f} s", flush=True)
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
