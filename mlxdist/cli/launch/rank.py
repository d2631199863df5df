"""What mpirun starts for each rank: the program, and beside it a process that reports how it ends.

    python -IS rank.py LAUNCH_VARIABLE PIPE_VARIABLE RANK_VARIABLES PROGRAM ARGUMENTS...

Run by its path, with nothing but the standard library: it begins in 40 ms, where ``import mlxdist`` takes 250.

mpirun sees a process that only waits. A child of it, in a session of its own, starts the program, so that what happens
to the rank is told even where mpirun kills it. Each message to the starter is a line of JSON; what comes back are
numbers of signals for the program, and the end of that stream ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

CONNECT_S = 5.0
TERMINATE_S = 2.0
DRAIN_S = 1.0  # a child of the program may keep its output open for ever
NO_WAY_BACK, NOT_STARTED = 1, 127
TEXT = "latin-1"  # every byte is a character


def connect(place: dict[str, Any], purpose: str, rank: int) -> socket.socket:
    """A connection to the process that started the job, by the first of its addresses at which it answers."""
    reasons = []
    hello = json.dumps([place["token"], purpose, rank, socket.gethostname()]).encode() + b"\n"
    for host, port in place["addresses"]:
        try:
            stream = socket.create_connection((host, port), CONNECT_S)
            stream.sendall(hello)
            if stream.recv(1):
                stream.settimeout(None)
                return stream
            reasons.append(f"{host}:{port} is somebody else")
        except OSError as error:
            reasons.append(f"{host}:{port}: {error}")
    raise ConnectionError("; ".join(reasons))


class Starter:
    """What is told to the starter and asked of it."""

    def __init__(self, stream: socket.socket) -> None:
        self.stream = stream
        self.lock = threading.Lock()

    def tell(self, *message: object) -> None:
        """Send one message; one that cannot arrive is lost, since then the program is ended."""
        with self.lock, contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.stream.sendall(json.dumps(message).encode() + b"\n")


class Program:
    """The rank's program."""

    def __init__(self, arguments: Sequence[str], environ: dict[str, str], stdin: int) -> None:
        # MPICH's ranks inherit the descriptor PMI_FD
        self.process = subprocess.Popen(
            arguments,
            env=environ,
            close_fds=False,
            start_new_session=True,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.ended_by: list[int] = []  # signals that were to end it

    def signal(self, number: int) -> None:
        """Send a signal to the program and its children."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)

    def stop(self) -> None:
        """End the program by force, with its children."""
        if self.process.poll() is not None:
            return
        for number, wait_s in ((signal.SIGTERM, TERMINATE_S), (signal.SIGKILL, 0.0)):
            if self.process.poll() is None:
                self.ended_by.append(number)
            self.signal(number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(wait_s)

    def was_stopped(self, status: int) -> bool:
        """Whether it ended with ``status`` because it was made to: one that is dying may not have ended yet."""
        return bool(self.ended_by) and (status >= 0 or -status in self.ended_by)


def pump(source: int, kind: str, starter: Starter) -> None:
    """Send on what the program prints."""
    while data := os.read(source, 1 << 16):
        starter.tell(kind, data.decode(TEXT))


def obey(program: Program, starter: Starter) -> None:
    """Do what the starter says."""
    with contextlib.suppress(OSError), starter.stream.makefile("rb") as numbers:
        for number in numbers:
            program.signal(int(number))
    program.stop()


def hold(program: Program, leash: int) -> None:
    """Wait for the end of the process that mpirun sees."""
    os.read(leash, 1)
    program.stop()


def announce_abort(pipe: int, starter: Starter) -> None:
    """Tell the starter that the program is about to abort the job, which mlxdist in it says by a byte."""
    if os.read(pipe, 1):
        starter.tell("aborting")


def watch(
    leash: int,
    starter: Starter,
    arguments: Sequence[str],
    environ: dict[str, str],
    pipe_variable: str,
    stdin: int,
) -> int:
    """Run the program and report; its exit status, negative for a signal."""
    abort_pipe, abort_end = os.pipe()
    os.set_inheritable(abort_end, True)
    environ[pipe_variable] = f"{abort_end}:{os.fstat(abort_end).st_ino}"
    try:
        program = Program(arguments, environ, stdin)
    except OSError as error:
        starter.tell("err", f"mlxdist launch: {arguments[0]} cannot be started: {error.strerror}\n")
        starter.tell("end", NOT_STARTED, False)
        return NOT_STARTED
    os.close(stdin)
    os.close(abort_end)
    process = program.process
    assert process.stdout
    assert process.stderr
    starter.tell("pid", process.pid)
    pumps = [
        threading.Thread(target=pump, args=(stream.fileno(), kind, starter), daemon=True)
        for kind, stream in (("out", process.stdout), ("err", process.stderr))
    ]
    others = [
        threading.Thread(target=hold, args=(program, leash), daemon=True),
        threading.Thread(target=obey, args=(program, starter), daemon=True),
        threading.Thread(target=announce_abort, args=(abort_pipe, starter), daemon=True),
    ]
    for thread in (*pumps, *others):
        thread.start()
    status = process.wait()
    starter.tell("end", status, program.was_stopped(status))
    for thread in pumps:
        thread.join(DRAIN_S)
    return status


def as_shells_say(status: int) -> int:
    """The exit status for what subprocess calls ``status``."""
    return status if status >= 0 else 128 - status


def main(launch_variable: str, pipe_variable: str, rank_variables: str, *arguments: str) -> int:
    """Start the program and wait for it; its exit status, as a shell has it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # to end without a traceback
    leash, held = os.pipe()
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        return as_shells_say(os.waitstatus_to_exitcode(status))
    os.close(held)
    os.setsid()
    environ = {"PYTHONUNBUFFERED": "1", **os.environ}
    place = json.loads(environ.pop(launch_variable))
    rank = next((int(environ[name]) for name in rank_variables.split(",") if name in environ), 0)
    try:
        starter = Starter(connect(place, "reports", rank))
        stdin = connect(place, "stdin", rank).detach() if rank == 0 else os.open(os.devnull, os.O_RDONLY)
    except ConnectionError as error:
        print(f"mlxdist launch: rank {rank} on {socket.gethostname()} cannot report: {error}", file=sys.stderr)
        return NO_WAY_BACK
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):  # mpirun waits for the end of these
        os.dup2(nowhere, stream)
    return as_shells_say(watch(leash, starter, arguments, environ, pipe_variable, stdin))


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(code)  # the threads of a rank never end
