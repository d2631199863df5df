"""``python -m mlxdist script.py`` and ``-m module`` run an unchanged MLX or JAX program as python would."""

from __future__ import annotations

import atexit
import importlib.util
import io
import os
import pkgutil
import runpy
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from importlib.machinery import SourceFileLoader
from types import ModuleType, TracebackType

import mlxdist
from mlxdist import config, world
from mlxdist.errors import Error
from mlxdist.jax import backend as jax

# This is what python itself calls (3.10 to 3.13). runpy's public functions set sys.argv and __file__ differently.
_run_as_main: Callable[..., object] = runpy._run_module_as_main  # type: ignore[attr-defined]
# For what MLX compiles on this rank: in a shared folder, ranks could write the same file (MLX 0.32.4).
_folder = ""


def run_program(arguments: Sequence[str]) -> int:
    """Run ``script arguments`` or ``-m module arguments``; the exit status if the program itself sets none."""
    sys.argv[:] = arguments
    path = os.path.join(os.getcwd(), arguments[0])
    code = None
    if arguments[0] == "-m":
        del sys.argv[1:2]
    elif pkgutil.get_importer(path):  # a directory, a zip
        _set_first_path(path)
    else:
        _set_first_path(os.path.dirname(os.path.realpath(path)))
        try:
            with io.open_code(path) as file:
                code = file.read()
        except OSError as error:
            reason = f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}"
            print(f"{sys.executable}: {reason}", file=sys.stderr)
            return 2
    sys.excepthook = _show_traceback  # before install(), which wraps it
    try:
        _install()
    except (Error, ValueError) as error:  # ValueError: of an environment variable
        print(f"mlxdist: {error}", file=sys.stderr)
        return 1
    main = sys.modules["__main__"] = ModuleType("__main__")
    if code is not None:
        vars(main).update(__file__=path, __cached__=None, __loader__=SourceFileLoader("__main__", path))
        try:
            exec(compile(code, path, "exec", dont_inherit=True), vars(main))
        finally:  # before a traceback is shown
            world.flush_output()
    elif arguments[0] == "-m":
        _run_as_main(arguments[1])
    else:
        _run_as_main("__main__", alter_argv=False)
    return 0


def _set_first_path(path: str) -> None:
    """Replace the working directory, which python -m has put first on sys.path."""
    if not getattr(sys.flags, "safe_path", False):  # since 3.11
        sys.path[0] = path


def _install() -> None:
    """Call ``mlxdist.install`` if MLX is installed. JAX waits until the program imports it."""
    global _folder
    jax.watch_import()
    try:
        found = importlib.util.find_spec("mlx.core")
    except ModuleNotFoundError:
        return
    if found:
        atexit.register(_remove_folder)  # before init(), so it runs after finalize()
        mlxdist.install()
        if mlxdist.init().size() > 1:
            _folder = os.environ[config.TMPDIR.name] = tempfile.mkdtemp(prefix="mlx-")


def _remove_folder() -> None:
    if _folder:
        shutil.rmtree(_folder, ignore_errors=True)


def _show_traceback(kind: type[BaseException], value: BaseException, traceback: TracebackType | None) -> None:
    """Show a traceback without the frames above the program."""
    frames = traceback
    while frames:
        if frames.tb_frame.f_code.co_filename == __file__:
            traceback = frames.tb_next
        frames = frames.tb_next
    sys.__excepthook__(kind, value.with_traceback(traceback), traceback)
    _remove_folder()  # the job may be aborted now
