"""What mpirun starts for each rank: the program, and a process beside it that reports how it ends.

    python -IS rank.py LAUNCH_VARIABLE PIPE_VARIABLE RANK_VARIABLES PROGRAM ARGUMENTS...

It is run by its path and imports the standard library only: it starts in 40 ms, where ``import mlxdist`` takes 250.

mpirun sees a process that only waits. Its child, in a session of its own, runs the program, so that the end of the rank
is reported even where mpirun kills the process that it started. Each report is a line of JSON. What comes back are the
numbers of signals for the program. When that stream ends, the program is stopped, and only then the rank itself ends:
some mpirun (Open MPI 4.1, 5.0) kill all ranks as soon as one has failed. What the program prints has connections of its
own, so that no report waits for somebody who reads slowly.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

CONNECT_TIMEOUT_S = 5.0
RETRY_S = 0.1
TERMINATE_S = 2.0  # from SIGTERM to SIGKILL
DRAIN_S = 1.0  # a child of the program may keep its output open forever
MOST_IN_PIPE = 1 << 20  # what a pipe can hold at most (Linux, without privileges)
PROC = "/proc"
FLAGS, PF_EXITING = 6, 4  # /proc/PID/stat, after the name of the program (Linux)
PS, EXITING = ("/bin/ps", "-o", "state=", "-p"), b"E"  # macOS, which has no /proc
PS_S = 1.0
CANNOT_REPORT, NOT_STARTED = 1, 127  # exit statuses
STOP = 0  # instead of the number of a signal: stop the program, unless it leaves by itself
OUTPUTS = ("out", "err")
LEAVING, ABORTING = b"l", b"a"  # what mlxdist writes into the pipe, in capitals after the error of a call
ANNOUNCED = {LEAVING: "leaving", ABORTING: "aborting"}
# As /proc/PID/maps lists the files that MPICH (5.0.2) leaves behind unless all ranks finalize. The other MPIs, and
# MPICH 4.0.2, remove the names of theirs during the start, or their mpirun does. On macOS they are no files, and nobody
# can list them.
LEFT_BEHIND = re.compile(r" (\d+) +(/dev/shm/mpich_shm_[0-9a-f]+_\d+)$", re.MULTILINE)
LOOK_S, LOOK_SHARE = 0.1, 0.05  # from look to look: at least, and of the time since the start


def quoted(word: str) -> str:
    """An argument that no mpirun takes for its own: a colon would begin another program."""
    return "\\" + word if word.lstrip("\\") == ":" else word


def unquoted(word: str) -> str:
    """What ``quoted`` was given."""
    return word[1:] if word.lstrip("\\") == ":" else word


def connect(contact: dict[str, Any], purpose: str, rank: int) -> socket.socket:
    """Connect to mlxdist launch, at the first of its addresses that answers."""
    hello = json.dumps([contact["token"], purpose, rank, socket.gethostname()]).encode() + b"\n"
    until = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        reasons = []
        for host, port in contact["addresses"]:
            try:
                stream = socket.create_connection((host, port), CONNECT_TIMEOUT_S)
                stream.sendall(hello)
                if stream.recv(1):
                    stream.settimeout(None)
                    return stream
                reasons.append(f"{host}:{port} refused the connection, or belongs to another program")
                stream.close()
            except OSError as error:
                reasons.append(f"{host}:{port}: {error}")
        if time.monotonic() > until:
            raise ConnectionError("; ".join(reasons))
        time.sleep(RETRY_S)


class Reporter:
    """The connection on which a rank sends its reports to mlxdist launch."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lock = threading.Lock()

    def send(self, kind: str, *values: object) -> None:
        """Send one report. If the connection is lost, so is the report: the program is then stopped anyway."""
        with self.lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.stream.sendall(json.dumps([kind, *values]).encode() + b"\n")


class SharedFiles:
    """The files in shared memory that the program would leave behind: those that it has been seen to map."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.seen: set[tuple[str, str]] = set()  # inode and path

    def look(self) -> None:
        """Look at what the program and its children map now."""
        found: set[tuple[str, str]] = set()
        pids = [self.process.pid]
        for pid in pids:
            with contextlib.suppress(OSError), open(f"{PROC}/{pid}/task/{pid}/children") as children:
                pids += map(int, children.read().split())
            with contextlib.suppress(OSError), open(f"{PROC}/{pid}/maps") as maps:
                found.update(LEFT_BEHIND.findall(maps.read()))
        if self.process.returncode is None:  # else the pid may be another program's
            self.seen |= found

    def watch(self) -> None:
        """Look until there is something: once a rank has crashed, nobody can tell its files from others'."""
        began = time.monotonic()
        while not self.seen and self.process.returncode is None:
            self.look()
            time.sleep(max(LOOK_S, LOOK_SHARE * (time.monotonic() - began)))

    def remove(self) -> None:
        """Remove what is left of them; another job's file may have the same name by now."""
        for inode, path in self.seen:
            with contextlib.suppress(OSError):
                if str(os.stat(path).st_ino) == inode:
                    os.unlink(path)


class Program:
    """The rank's program.

    It inherits a pipe, by which mlxdist in it announces that it leaves or is about to abort the job. Other programs
    ignore it.
    """

    def __init__(self, arguments: Sequence[str], environ: dict[str, str], pipe_variable: str, stdin: int) -> None:
        self.pipe, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        # The number alone may stand for another file in a child of the program.
        place = f"{write_end}:{os.fstat(write_end).st_ino}"
        try:
            self.process = subprocess.Popen(
                arguments,
                env={**environ, pipe_variable: place},
                close_fds=False,  # MPICH's ranks also inherit the descriptor PMI_FD
                start_new_session=True,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
            )
        finally:
            os.close(write_end)
        self.files = SharedFiles(self.process)
        self.stopped_by: list[int] = []  # signals

    def signal(self, number: int) -> None:
        """Send a signal to the program and its children."""
        # macOS denies the permission where all of them have ended, and nobody has waited for them yet.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """Stop the program and its children: SIGTERM, then SIGKILL."""
        if self.process.poll() is not None:
            return
        self.files.look()
        for number, wait_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, 0.0)):
            if self.process.poll() is None and not self._is_exiting():
                self.stopped_by.append(number)
            self.signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)

    def _is_exiting(self) -> bool:
        """Whether it has called exit or has been killed, but the system has not reported that yet."""
        with contextlib.suppress(OSError), open(f"{PROC}/{self.process.pid}/stat") as file:
            return bool(int(file.read().rpartition(")")[2].split()[FLAGS]) & PF_EXITING)
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            return EXITING in subprocess.run([*PS, str(self.process.pid)], capture_output=True, timeout=PS_S).stdout
        return False

    def was_stopped(self, status: int) -> bool:
        """Whether ``status`` comes from ``stop``; a program that crashed just before keeps its own signal."""
        return bool(self.stopped_by) and (status >= 0 or -status in self.stopped_by)


def readable(descriptors: Sequence[int], timeout_ms: int | None = None) -> list[int]:
    """Those of ``descriptors`` that can be read, or have been closed at the other end."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout_ms)]


def forward_output(source: int, is_over: int, stream: socket.socket) -> None:
    """Send on what the program prints, to its end, or what there is of it when ``is_over`` closes."""
    found: list[int] = []
    with stream, contextlib.suppress(OSError):  # the connection is lost: the program is stopped anyway
        while is_over not in found:
            found = readable([source, is_over])
            if source in found:
                if not (data := os.read(source, MOST_IN_PIPE)):
                    return
                stream.sendall(data)


class Announcements:
    """What mlxdist in the program announces, before any other rank can notice it."""

    def __init__(self, program: Program, reporter: Reporter) -> None:
        self.program, self.reporter = program, reporter
        self.lock = threading.Lock()
        self.first: bytes = b""

    def forward(self) -> None:
        """Report each of them."""
        while readable([self.program.pipe]) and self.take():
            pass

    def take(self) -> bool:
        """Report those that have been made; whether there may be more."""
        with self.lock:
            while readable([self.program.pipe], 0):
                if not (word := os.read(self.program.pipe, 1)):
                    return False
                if kind := ANNOUNCED.get(word.lower()):
                    self.first = self.first or word.lower()
                    self.reporter.send(kind, word.isupper())
        return True

    def is_leaving(self) -> bool:
        """Whether the program ends by itself."""
        self.take()
        return self.first == LEAVING


def control(program: Program, reporter: Reporter, announcements: Announcements, may_end: threading.Event) -> None:
    """Pass on the signals that mlxdist launch sends, and stop the program when it hangs up."""
    with contextlib.suppress(OSError), reporter.stream.makefile("rb") as numbers:
        for number in map(int, numbers):
            if number != STOP:
                program.signal(number)
            elif not announcements.is_leaving():
                program.stop()
    program.stop()
    may_end.set()


def watch_parent(program: Program, parent_pipe: int, may_end: threading.Event) -> None:
    """Stop the program when the process that mpirun started has ended."""
    os.read(parent_pipe, 1)
    program.stop()
    may_end.set()


def run_program(program: Program, reporter: Reporter, outputs: Sequence[socket.socket], parent_pipe: int) -> int:
    """Report on the program until it ends, and until mlxdist launch lets go; its exit status, negative for a signal."""
    process = program.process
    assert process.stdout
    assert process.stderr
    reporter.send("started", process.pid)
    is_over, write_end = os.pipe()
    announcements, may_end = Announcements(program, reporter), threading.Event()
    forwarding = [
        threading.Thread(target=forward_output, args=(source.fileno(), is_over, stream), daemon=True)
        for source, stream in zip((process.stdout, process.stderr), outputs, strict=True)
    ]
    others = [
        threading.Thread(target=watch_parent, args=(program, parent_pipe, may_end), daemon=True),
        threading.Thread(target=control, args=(program, reporter, announcements, may_end), daemon=True),
        threading.Thread(target=program.files.watch, daemon=True),
        threading.Thread(target=announcements.forward, daemon=True),
    ]
    for thread in (*forwarding, *others):
        thread.start()
    status = process.wait()
    reporter.send("ended", status, program.was_stopped(status))
    for thread in forwarding:
        thread.join(DRAIN_S)
    os.close(write_end)
    for thread in forwarding:
        thread.join()
    may_end.wait()
    program.files.remove()
    return status


def shell_status(status: int) -> int:
    """The exit status that a shell has for a ``returncode`` of subprocess."""
    return status if status >= 0 else 128 - status


def run_rank(launch_variable: str, pipe_variable: str, rank_variables: str, *arguments: str) -> int:
    """Run the program and report on it; its exit status, as a shell has it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # to end without a traceback
    parent_pipe, write_end = os.pipe()
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        return shell_status(os.waitstatus_to_exitcode(status))
    os.close(write_end)
    os.setsid()
    environ = {"PYTHONUNBUFFERED": "1", **os.environ}
    contact = json.loads(environ.pop(launch_variable))
    rank = next((int(environ[name]) for name in rank_variables.split(",") if name in environ), 0)
    try:
        reporter = Reporter(connect(contact, "reports", rank))
        outputs = [connect(contact, kind, rank) for kind in OUTPUTS]
        stdin = connect(contact, "stdin", rank).detach() if rank == 0 else os.open(os.devnull, os.O_RDONLY)
    except ConnectionError as error:
        print(f"mlxdist launch: rank {rank} on {socket.gethostname()} cannot report: {error}", file=sys.stderr)
        return CANNOT_REPORT
    devnull = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # mpirun waits for the end of these
        os.dup2(devnull, stream)
    try:
        program = Program([unquoted(word) for word in arguments], environ, pipe_variable, stdin)
    except OSError as error:
        outputs[-1].sendall(f"mlxdist launch: {arguments[0]} cannot be started: {error.strerror}\n".encode())
        reporter.send("ended", NOT_STARTED, False)
        return NOT_STARTED
    os.close(stdin)
    return shell_status(run_program(program, reporter, outputs, parent_pipe))


if __name__ == "__main__":
    code = run_rank(*sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)  # the threads of a rank never end
