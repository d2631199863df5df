"""What the system says of processes: those above this one, and the files that this one has mapped.

On Linux it is in /proc, which other systems do not have, nor have some containers.
"""

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

PROC = "/proc"
# All processes in one call. BSD's ps cuts lines to the width of a terminal unless w is given twice.
PS = ("/bin/ps", "-axwwo", "pid=,ppid=,comm=")
PROGRAM_S = 5.0
LONGEST_PATH = 4096  # PROC_PIDPATHINFO_MAXSIZE of macOS


@dataclass(frozen=True)
class Process:
    """An ancestor of this process. Of another user's process only the name is known, without a directory."""

    pid: int
    executable: str


def ancestors() -> tuple[Process, ...]:
    """The ancestors of this process, nearest first; none where the system does not say."""
    look = _in_proc if os.path.isdir(f"{PROC}/{os.getpid()}") else _in(_listed())
    found: list[Process] = []
    _, pid = look(os.getpid())
    # Bounded, because a pid that is reused in the meantime could make a cycle.
    while pid and len(found) < 100:
        executable, parent = look(pid)
        found.append(Process(pid, executable))
        pid = parent
    return tuple(found)


def _in_proc(pid: int) -> tuple[str, int]:
    """Executable and parent of a process."""
    try:
        text = Path(PROC, str(pid), "stat").read_text(errors="replace")
    except OSError:
        return "", 0
    # The name itself may contain parentheses.
    name, parent = text[text.index("(") + 1 : text.rindex(")")], int(text.rpartition(")")[2].split()[1])
    try:
        return os.readlink(f"{PROC}/{pid}/exe").removesuffix(" (deleted)"), parent
    except OSError:
        return name, parent


def _in(processes: dict[int, tuple[str, int]]) -> Callable[[int], tuple[str, int]]:
    def look(pid: int) -> tuple[str, int]:
        name, parent = processes.get(pid, ("", 0))
        return _executable(pid) or name, parent

    return look


def _listed() -> dict[int, tuple[str, int]]:
    """By what name each process was started, and its parent; empty where ps is missing or refuses."""
    found = {}
    for line in output_of(PS).splitlines():
        pid, parent, name = (*line.split(maxsplit=2), "", "", "")[:3]
        if pid.isdecimal() and parent.isdecimal():
            # (name): macOS hides how another user's process was started.
            found[int(pid)] = (name[1:-1] if name.startswith("(") and name.endswith(")") else name, int(parent))
    return found


def output_of(command: Sequence[str]) -> str:
    """What one of the system's short programs prints; empty if it is missing, refuses or hangs."""
    import subprocess  # 5 ms that only other systems than Linux need

    try:
        # With these arguments subprocess does not fork but spawns, which frameworks on macOS tolerate better.
        return os.fsdecode(subprocess.run(command, capture_output=True, close_fds=False, timeout=PROGRAM_S).stdout)
    except (OSError, subprocess.SubprocessError):
        return ""


def _executable(pid: int) -> str:
    """The file that a process runs, as only macOS tells beside its ps, whose names users may have typed."""
    path = ctypes.create_string_buffer(LONGEST_PATH)
    try:
        return os.fsdecode(path.value) if ctypes.CDLL(None).proc_pidpath(pid, path, LONGEST_PATH) > 0 else ""
    except AttributeError:
        return ""


def mapped_files() -> list[str]:
    """The files that this process has mapped, libraries among them; none where the system does not say."""
    return _images() if sys.platform == "darwin" else _mapped()


def _mapped() -> list[str]:
    try:
        with open(f"{PROC}/self/maps", encoding="utf-8", errors="surrogateescape") as maps:
            return [fields[5].rstrip("\n") for line in maps if len(fields := line.split(maxsplit=5)) == 6]
    except OSError:
        return []


def _images() -> list[str]:
    dyld = ctypes.CDLL(None)
    dyld._dyld_get_image_name.restype = ctypes.c_char_p
    # Another thread may close a library in between: its place has no name.
    return [os.fsdecode(dyld._dyld_get_image_name(i) or b"") for i in range(dyld._dyld_image_count())]
