"""What the ranks print, line by line, each with its rank in front.

Each stream of a rank has a thread, which calls ``Stream.write`` and waits there while the reader of this process's own
output is slow. So a rank that prints faster than somebody reads waits too, and the job itself never does.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import select
import socket
import sys
import threading
import time
from collections import defaultdict, deque

PARTIAL_S = 0.2  # a line that is still without its end after this time is shown as it is
LONGEST_LINE = 1 << 20  # bytes; of a longer line, so much is shown at a time
PIECE = 1 << 16
LAST_LINES, LAST_LENGTH = 3, 500
DESCRIPTORS = {"out": 1, "err": 2}
_LINE = re.compile(rb"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")  # a progress bar ends its lines with \r
_WORD = re.compile(rb"[\w\x80-\xff]")


class Output:
    """Writes what ranks print to this process's own stdout and stderr, and keeps the last lines of each.

    Attributes:
        error: why nothing more can be written.
    """

    def __init__(self, prefixed: bool) -> None:
        self.error: OSError | None = None
        self._prefixed = prefixed
        self._last: dict[int, deque[bytes]] = defaultdict(lambda: deque(maxlen=LAST_LINES))
        self._open: Stream | None = None  # whose line has been shown without its end
        self._lock = threading.Lock()  # held while something is written
        self._written_at = 0.0

    def copy(self, rank: int, kind: str, connection: socket.socket) -> None:
        """Show what comes by ``connection`` until its end."""
        stream = Stream(self, rank, kind)
        try:
            while True:
                connection.settimeout(PARTIAL_S if stream.partial else None)
                try:
                    data = connection.recv(PIECE)
                except TimeoutError:
                    stream.show_partial()
                    continue
                if not data:
                    return
                stream.write(data)
        finally:
            stream.show_partial()

    def idle_s(self) -> float:
        """How long nothing has been written; 0 while the reader is waited for."""
        return 0.0 if self._lock.locked() else time.monotonic() - self._written_at

    def close(self, words: str) -> None:
        """Say ``words`` after everything else, on stderr."""
        if self._lock.acquire(blocking=False):  # else the output was given up, since its reader does not read
            self._end_open_line()
            self._lock.release()
        if words:
            with contextlib.suppress(OSError):
                _write(DESCRIPTORS["err"], f"mlxdist launch: {words}\n".encode(errors="surrogateescape"))

    def last(self, rank: int) -> list[str]:
        """The last lines of ``rank`` that contain a word."""
        return [line.decode(errors="replace") for line in self._last[rank]]

    def show(self, stream: Stream, text: bytes) -> None:
        """Show lines of ``stream``; the last one may be without its end."""
        if self.error:
            return
        lines = _LINE.findall(text)
        prefix = f"[{stream.rank}] ".encode() if self._prefixed else b""
        with self._lock:
            if self._open != stream:
                self._end_open_line()
            self._write(stream.kind, (b"" if self._open else prefix) + prefix.join(lines))
            self._open = None if lines[-1].endswith((b"\n", b"\r")) else stream
            self._written_at = time.monotonic()
        told = (line.strip()[:LAST_LENGTH] for line in reversed(lines) if _WORD.search(line))
        self._last[stream.rank].extend(reversed([*itertools.islice(told, LAST_LINES)]))

    def _end_open_line(self) -> None:
        if self._open and self._prefixed:
            self._write(self._open.kind, b"\n")
        self._open = None

    def _write(self, kind: str, text: bytes) -> None:
        if not self.error:
            try:
                _write(DESCRIPTORS[kind], text)
            except OSError as error:
                self.error = error


class Stream:
    """What one rank prints on ``kind``, "out" or "err"; for one thread."""

    def __init__(self, output: Output, rank: int, kind: str) -> None:
        self.rank, self.kind = rank, kind
        self.partial = bytearray()  # a line without its end
        self._output, self._since = output, 0.0

    def write(self, data: bytes) -> None:
        """Show the complete lines, and what has waited for the end of its line for long."""
        now = time.monotonic()
        if not self.partial:
            self._since = now
        end = 1 + max(data.rfind(b"\n"), data.rfind(b"\r", 0, -1))  # a last \r may be half of \r\n
        if end:
            self._output.show(self, bytes(self.partial) + data[:end])
            self.partial.clear()
            self._since = now
        self.partial += data[end:]
        if now - self._since >= PARTIAL_S or len(self.partial) >= LONGEST_LINE:
            self.show_partial()

    def show_partial(self) -> None:
        """Show a line without its end, such as a prompt."""
        if self.partial:
            self._output.show(self, bytes(self.partial))
            self.partial.clear()


def _write(descriptor: int, text: bytes) -> None:
    rest = memoryview(text)
    while rest:
        try:
            rest = rest[os.write(descriptor, rest) :]
        except BlockingIOError:  # a terminal that another program, such as ssh, has made non-blocking
            select.select([], [descriptor], [])


def open_standard_streams() -> None:
    """Open those of stdin, stdout and stderr that are closed: a connection could get their descriptors."""
    for descriptor, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened == descriptor:
                os.set_inheritable(opened, True)
            else:
                os.dup2(opened, descriptor)
                os.close(opened)
            setattr(sys, name, os.fdopen(descriptor, "w" if descriptor else "r", closefd=False))
