"""One job: start it, show what its ranks print, pass on signals, end it in time, and tell how it ended."""

from __future__ import annotations

import contextlib
import math
import os
import queue
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlxdist import config, world
from mlxdist.cli.launch.output import Output
from mlxdist.cli.launch.rank import as_shells_say
from mlxdist.cli.launch.reports import Reports

TIMED_OUT = 124  # as timeout(1) has it
TICK_S = 0.1
ABORTS_S = world.PASS_ON_S / 2
LEAVE_S = 3.0  # to the other ranks after one has failed, or to all after a signal
PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
ENDING = PASSED_ON[:3]


@dataclass
class Rank:
    """A rank as far as is known.

    Attributes:
        status: its exit status, negative for a signal.
        stopped: it was made to end.
        aborts: it has said that it ends the job.
    """

    number: int
    host: str
    pid: int = 0
    status: int | None = None
    stopped: bool = False
    aborts: bool = False

    def __str__(self) -> str:
        return f"rank {self.number} on {self.host}"

    @property
    def failed(self) -> bool:
        """Whether it has ended badly by itself."""
        return not self.stopped and self.status != 0

    @property
    def end(self) -> str:
        """How it ended."""
        if self.status is None:
            return "was lost: its connection has ended"
        if self.status < 0:
            return f"was killed by {signal.Signals(-self.status).name} (status {as_shells_say(self.status)})"
        return f"ended with status {self.status}"


class Job:
    """The ranks of one mpirun, from its start to its end."""

    def __init__(self, size: int, reports: Reports, output: Output) -> None:
        self._size, self._reports, self._output = size, reports, output
        self._ranks: dict[int, Rank] = {}
        self._present: set[int] = set()
        self._failed: list[Rank] = []
        self._signals: deque[int] = deque()
        self._signalled = 0
        self._awaited = ""  # who had not ended when the time limit passed
        self._end_at, self._kill_at = math.inf, math.inf

    def run(self, command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> int:
        """Start it by ``command`` and follow it to its end; the exit status. A limit of 0 is none."""
        limit_at = time.monotonic() + (timeout_s or math.inf)
        may_go_on = config.ABORT.get(environ) == "0"
        with (
            _noted(self._signals),
            # In a session of its own, since a terminal would send Ctrl-C to mpirun too.
            subprocess.Popen(command, env=environ, start_new_session=True, stdin=subprocess.DEVNULL) as mpirun,
        ):
            try:
                while mpirun.poll() is None or self._present:
                    self._take(may_go_on)
                    self._pass_on_signals()
                    self._keep_time(mpirun, limit_at)
                self._output.close()
            except BrokenPipeError:  # head, say, has read enough
                for stream in (1, 2):
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
                self._signalled = signal.SIGPIPE
            finally:
                self._reports.hang_up()
                mpirun.kill()
        status, words = self._outcome(mpirun.returncode, timeout_s)
        if words:
            print(f"mlxdist launch: {words}", file=sys.stderr)
        return status

    def _take(self, may_go_on: bool) -> None:
        """One report, if any."""
        try:
            report = self._reports.queue.get(timeout=TICK_S)
        except queue.Empty:
            self._output.show_begun()
            return
        if report.kind == "here":
            self._ranks[report.rank] = Rank(report.rank, *report.values)
            self._present.add(report.rank)
            return
        rank = self._ranks[report.rank]
        match report.kind, report.values:
            case "pid", [pid]:
                rank.pid = pid
            case "out" | "err" as kind, [text]:
                self._output.write(rank.number, kind, text)
            case "aborting", _ if rank.status is None:
                # It will call MPI_Abort in a moment. The others would complain of its death before mpirun has ended
                # them, and it may end with another status where mpirun is slow (MPICH 4.0.2, 5.0.2).
                rank.status, rank.aborts = 1, True
                self._reports.hang_up(but=rank.number)
                self._note_end(rank, may_go_on=False, leave_s=ABORTS_S)
            case "end", [status, stopped] if rank.status is None:
                rank.status, rank.stopped = status, stopped
                self._note_end(rank, may_go_on)
            case "gone", _:
                self._present.discard(rank.number)
                if rank.status is None:
                    self._note_end(rank, may_go_on)

    def _note_end(self, rank: Rank, may_go_on: bool, leave_s: float = LEAVE_S) -> None:
        if rank.failed:
            self._failed.append(rank)
        every = len(self._ranks) == self._size and all(rank.status is not None for rank in self._ranks.values())
        if every or (self._failed and not may_go_on):
            self._end_in(leave_s)

    def _end_in(self, seconds: float) -> None:
        self._end_at = min(self._end_at, time.monotonic() + seconds)

    def _pass_on_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            self._reports.signal(number)
            if number in ENDING:
                self._end_in(0 if self._signalled or not self._present else LEAVE_S)
                self._signalled = self._signalled or number

    def _keep_time(self, mpirun: subprocess.Popen[bytes], limit_at: float) -> None:
        now = time.monotonic()
        if mpirun.poll() is not None:
            self._end_in(LEAVE_S)
        if now >= limit_at and not self._awaited:
            self._awaited = self._who_is_awaited()
            self._end_in(0)
        if now >= self._end_at and self._kill_at == math.inf:
            self._kill_at = now + LEAVE_S
            self._reports.hang_up()
            mpirun.terminate()
        if now >= self._kill_at:
            mpirun.kill()
            self._present.clear()  # on hosts that do not answer

    def _who_is_awaited(self) -> str:
        living = [f"{rank} (pid {rank.pid})" for rank in self._ranks.values() if rank.status is None]
        absent = self._size - len(self._ranks)
        return ", ".join([*living, *([f"{absent} that had not begun"] if absent else [])]) or "mpirun"

    def _outcome(self, mpirun_status: int, timeout_s: float) -> tuple[int, str]:
        """The exit status, and what there is to say of it."""
        if self._awaited:
            return TIMED_OUT, f"the time limit of {timeout_s:g} s has passed, and so these were ended: {self._awaited}"
        if self._signalled:
            return 128 + self._signalled, f"ended by {signal.Signals(self._signalled).name}"
        self._failed += [rank for rank in self._ranks.values() if rank.status is None and rank not in self._failed]
        if self._failed:
            # One that dies is missed by others a moment before its end can be told.
            first = min(self._failed, key=lambda rank: rank.aborts)
            last = self._output.last(first.number)
            status = 1 if first.status is None else as_shells_say(first.status)
            return status, f"{first} {first.end}" + (f"; last: {' | '.join(last)}" if last else "")
        if mpirun_status or len(self._ranks) < self._size:
            begun = "though no rank had failed" if self._ranks else "before any rank began"
            status = as_shells_say(mpirun_status)
            return status or 1, f"mpirun ended with status {status} {begun}"
        return 0, ""


@contextlib.contextmanager
def _noted(signals: deque[int]) -> Iterator[None]:
    """Signals that end or concern the ranks are noted for them; what nohup has this process ignore is ignored."""
    heard = [number for number in PASSED_ON if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, lambda number, _: signals.append(number)) for number in heard}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
