"""Compiles and links the extensions of setup.py for a target, with zig."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from distutils.core import run_setup
from functools import cache
from pathlib import Path

import debian
import numpy
import pythons
import ziglang
from setuptools import Extension
from targets import CXX, UNWINDER, Target

ROOT = Path(__file__).parents[1]
OUT = ROOT / "build" / "cross"
ZIG = Path(ziglang.__file__).parent / "zig"
STRICT = ("-Wall", "-Wextra", "-Werror")


class Failed(Exception):
    """A compiler or linker has said no; the text is what it printed."""


def extensions(target: Target) -> list[Extension]:
    """What setup.py builds on ``target``."""
    os.environ["_PYTHON_HOST_PLATFORM"] = "macosx-11.0" if target.is_macos else "linux"
    os.chdir(ROOT)
    return run_setup("setup.py", ["--quiet"], stop_after="init").ext_modules


def zig(target: Target, *arguments: str | Path) -> str:
    """Run zig's compiler, return what it prints."""
    cache = {"ZIG_GLOBAL_CACHE_DIR": str(OUT / "zig"), "ZIG_LOCAL_CACHE_DIR": str(OUT / "zig")}
    driver = "c++" if any(str(argument).endswith(".cpp") for argument in arguments) else "cc"
    command = [str(ZIG), driver, "-target", target.name, *map(str, arguments)]
    finished = subprocess.run(command, cwd=ROOT, env=os.environ | cache, capture_output=True, text=True)
    if finished.returncode:
        raise Failed(f"{finished.stderr.strip()}\n{target.name}: {' '.join(command)}: status {finished.returncode}")
    return finished.stdout


def zig_each(target: Target, calls: Iterable[Sequence[str | Path]]) -> list[str]:
    """Several of them at a time; all that fail are reported."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        runs = [pool.submit(zig, target, *arguments) for arguments in calls]
    if errors := [str(run.exception()) for run in runs if run.exception()]:
        raise Failed("\n\n".join(errors))
    return [run.result() for run in runs]


@cache
def numpy_headers(target: Target) -> Path:
    """NumPy's headers from its wheel for ``target``: they say what the system has."""
    folder = OUT / "numpy" / target.platform / numpy.__version__
    if not folder.exists():
        with tempfile.TemporaryDirectory() as downloads:
            pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
            older = target.platform.replace("manylinux_2_28", "manylinux2014")  # up to NumPy 2.2
            which = ["--only-binary", ":all:", "--platform", target.platform, "--platform", older, "--dest", downloads]
            subprocess.run([*pip, *which, f"numpy=={numpy.__version__}"], check=True)
            (wheel,) = Path(downloads).iterdir()
            with zipfile.ZipFile(wheel) as opened:
                names = [name for name in opened.namelist() if "/include/" in name]
                opened.extractall(folder, names)
    return folder / "numpy" / "_core" / "include"


@cache
def python_headers(version: str) -> Path:
    """Those of an interpreter that runs here, and so of 64-bit Linux.

    Each system has another pyconfig.h, but of what the headers and Cython ask of it the sizes are the same on all of
    ours, and the rest all of them have.
    """
    folder = OUT / "python" / version
    if not (folder / "Python.h").exists():
        try:
            is_this = version == "{}.{}".format(*sys.version_info)
            python = Path(sys.executable) if is_this else pythons.found(version).path
        except debian.Unavailable as why:
            raise Failed(f"there are no headers of Python {version}: {why}") from None
        asked = [python, "-c", "import sysconfig; print(sysconfig.get_path('include'))"]
        include = Path(subprocess.run(asked, capture_output=True, text=True, check=True).stdout.strip())
        shutil.copytree(include, folder, dirs_exist_ok=True)
        for real in include.parent.glob(f"*-linux-gnu/{include.name}/pyconfig.h"):  # Debian's own only includes it
            shutil.copy(real, folder)
    return folder


def is_cython(source: str) -> bool:
    return Path(source).with_suffix(".pyx").exists()


def options(target: Target, extension: Extension, source: str, version: str) -> list[str]:
    """Those that setup.py would use, and strict warnings; headers that are not ours give none."""
    ours = [folder for folder in extension.include_dirs if folder != numpy.get_include()]
    result = [f"-I{folder}" for folder in ours]
    result += [f"-D{name}" if value is None else f"-D{name}={value}" for name, value in extension.define_macros]
    if is_cython(source):
        result += ["-isystem", str(python_headers(version)), "-isystem", str(numpy_headers(target))]
    return [*result, *extension.extra_compile_args, *STRICT]


def objects(target: Target, extension: Extension, version: str) -> dict[str, Path]:
    """The object file of each source; only what Cython made depends on the version of Python."""
    folder = OUT / target.name / extension.name
    return {
        source: folder / (version if is_cython(source) else "any") / f"{'-'.join(Path(source).parts)}.o"
        for source in extension.sources
    }


def compile_for(target: Target, extension: Extension, *versions: str) -> None:
    """Compile the sources of ``extension`` for these versions of Python."""
    calls = {}
    for version in versions:
        for source, path in objects(target, extension, version).items():
            path.parent.mkdir(parents=True, exist_ok=True)
            calls[path] = [*options(target, extension, source, version), "-fPIC", "-c", source, "-o", path]
    zig_each(target, calls.values())


@cache
def cxx_libraries(target: Target) -> tuple[Path, ...]:
    """What stands for the system's C++ runtime while an extension is linked: the names, without code."""
    folder = OUT / target.name / "runtime"
    folder.mkdir(parents=True, exist_ok=True)
    if target.is_macos:
        described = folder / "libc++.tbd"
        both = "targets: [x86_64-macos, arm64-macos]"
        names = ", ".join(sorted(f"'_{name}'" for group in CXX.values() for name in group.split()))
        described.write_text(
            f"--- !tapi-tbd\ntbd-version: 4\n{both}\ninstall-name: '/usr/lib/libc++.1.dylib'\n"
            f"exports:\n  - {both}\n    symbols: [{names}]\n...\n"
        )
        return (described,)
    made = []
    for name, versions in (("libstdc++.so.6", CXX), ("libgcc_s.so.1", UNWINDER)):
        source, script = folder / f"{name}.c", folder / f"{name}.map"
        symbols = [symbol for group in versions.values() for symbol in group.split()]
        source.write_text("".join(f"void {symbol}(void) {{}}\n" for symbol in symbols))
        script.write_text(
            "".join(f"{version} {{{group.replace(' ', ';')};}};\n" for version, group in versions.items())
        )
        made.append(folder / name)
        quiet = ("-w", "-fno-builtin", "-nostdlib", "-shared")
        zig(target, *quiet, f"-Wl,-soname,{name}", f"-Wl,--version-script,{script}", source, "-o", made[-1])
    return tuple(made)


def link(target: Target, extension: Extension, version: str) -> Path:
    """Make the shared object of what was compiled."""
    suffix = f".cpython-{version.replace('.', '')}-{target.suffix}.so"
    path = OUT / target.name / f"{extension.name.rpartition('.')[2]}{suffix}"
    kind = ["-shared"]
    if target.is_macos:  # the interpreter has Python's names
        kind = ["-dynamiclib", "-undefined", "dynamic_lookup", f"-Wl,-install_name,@rpath/{path.name}"]
    files = objects(target, extension, version).values()
    runtime = cxx_libraries(target) if any(source.endswith(".cpp") for source in extension.sources) else ()
    zig(target, *kind, *extension.extra_link_args, *files, *runtime, "-o", path)
    return path


def marked_for_export(target: Target, extension: Extension, version: str) -> set[str]:
    """The names that are declared with default visibility in its sources and in what these include."""
    calls = [[*options(target, extension, source, version), "-w", "-E", source] for source in extension.sources]
    declared = r'\(visibility\s*\("default"\)\)\)[^;{=]*?(\w+)\s*[(=;\[]'
    return {name for text in zig_each(target, calls) for name in re.findall(declared, text)}
