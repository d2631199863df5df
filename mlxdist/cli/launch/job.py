"""One job from start to end: forwards signals, enforces the timeout, and says how it ended.

Each rank reports how it ends (reports.py), and mpirun does not see that before all have ended: so no rank is killed
before its own end is known. To blame is the rank that left first, among those that failed: its status is not 0, or its
connection is lost. A rank has left when it has ended, when it announces that it is about to (it waits for the others in
``finalize()``), or that it aborts the job. A rank that was stopped from here has not failed. A rank that leaves after
the error of a call comes last: another may have left before, whose end is reported later. See ``Job._outcome``.

Nothing here waits for whoever reads the output. The job is judged when all of it has been read, or after a timeout or a
signal when the grace is over.
"""

from __future__ import annotations

import contextlib
import math
import queue
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mlxdist import config
from mlxdist.cli.launch.output import Output
from mlxdist.cli.launch.rank import STOP, shell_status
from mlxdist.cli.launch.reports import Reports

TIMED_OUT = 124  # as timeout(1) has it
TICK_S = 0.1
GRACE_S = 3.0  # for the other ranks after one has failed, and for all ranks after a signal
FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
TERMINATING = FORWARDED[:3]


@dataclass
class Rank:
    """What is known of a rank.

    Attributes:
        status: its exit status, negative for a signal.
        stopped: this process had it stopped.
        leaving: it has announced that it communicates no more.
        follows: whether it may have failed because another rank left: 0 if not, 1 if finalize() failed after it was the
            first to say that it leaves, 2 after the error of a call.
    """

    number: int
    host: str
    pid: int = 0
    status: int | None = None
    stopped: bool = False
    leaving: bool = False
    follows: int = 0

    def __str__(self) -> str:
        return f"rank {self.number} on {self.host}"

    @property
    def failed(self) -> bool:
        """Whether it failed by itself."""
        return not self.stopped and self.status != 0

    @property
    def gone(self) -> bool:
        """Whether it left by itself, without a failure."""
        return not self.failed and (self.leaving or not self.stopped)

    @property
    def end(self) -> str:
        """How it ended."""
        if self.status is None:
            return "was lost: its connection closed"
        if self.status < 0:
            return f"was killed by {signal.Signals(-self.status).name} (status {shell_status(self.status)})"
        return f"ended with status {self.status}"


class Job:
    """The ranks of one mpirun."""

    def __init__(self, size: int, reports: Reports, output: Output) -> None:
        self._size, self._reports, self._output = size, reports, output
        self._ranks: dict[int, Rank] = {}
        self._connected: set[tuple[int, str]] = set()  # rank and purpose
        self._left: list[Rank] = []  # in this order
        self._signals: deque[int] = deque()
        self._ended_by = 0  # a signal
        self._timed_out = ""  # who was still running when the time was up
        self._stop_at, self._kill_at = math.inf, math.inf

    def run(self, command: Sequence[str], environ: Mapping[str, str], timeout_s: float) -> int:
        """Start mpirun by ``command`` and wait for the end of the job; the exit status. A timeout of 0 means none."""
        deadline = time.monotonic() + (timeout_s or math.inf)
        others_go_on = config.ABORT.get(environ) == "0"
        with (
            _queued(self._signals),
            # In a session of its own, since a terminal would send Ctrl-C to mpirun too.
            subprocess.Popen(command, env=environ, start_new_session=True, stdin=subprocess.DEVNULL) as mpirun,
        ):
            try:
                while mpirun.poll() is None or self._connected:
                    self._handle_report(others_go_on)
                    self._forward_signals()
                    self._enforce_deadlines(mpirun, deadline)
            finally:
                self._reports.let_go()
                mpirun.kill()
            status, words = self._outcome(mpirun.wait(), timeout_s)
            self._close_output(words)
        return status

    @property
    def _given_up(self) -> bool:
        """Whether nobody waits for the output any more."""
        return bool(self._ended_by or self._timed_out)

    def _close_output(self, words: str) -> None:
        closing = threading.Thread(target=self._output.close, args=(words,), daemon=True)
        closing.start()
        closing.join(TICK_S)
        while closing.is_alive() and not (self._given_up or self._signals):
            closing.join(TICK_S)

    def _handle_report(self, others_go_on: bool) -> None:
        try:
            report = self._reports.queue.get(timeout=TICK_S)
        except queue.Empty:
            return
        match report.kind, report.values:
            case "connected", [purpose, host]:
                self._ranks.setdefault(report.rank, Rank(report.rank, host))
                self._connected.add((report.rank, purpose))
                return
        rank = self._ranks[report.rank]
        match report.kind, report.values:
            case "started", [pid]:
                rank.pid = pid
            case "leaving", [follows] if rank.status is None:
                if rank.leaving:
                    rank.follows = max(rank.follows, 1)
                else:
                    rank.leaving, rank.follows = True, 2 * follows
                    self._left.append(rank)
            case "aborting", [follows] if rank.status is None:
                # It will call MPI_Abort in a moment. The others would complain of its death before mpirun has ended
                # them, and it may end with another status where mpirun is slow (MPICH 4.0.2, 5.0.2).
                rank.status, rank.follows = 1, 2 * follows
                self._reports.signal(STOP)
                self._rank_left(rank, others_go_on=False)
            case "ended", [status, stopped] if rank.status is None:
                rank.status, rank.stopped = status, stopped
                self._rank_left(rank, others_go_on)
            case "disconnected", [purpose]:
                self._connected.discard((rank.number, purpose))
                if purpose == "reports" and rank.status is None:
                    self._rank_left(rank, others_go_on)

    def _rank_left(self, rank: Rank, others_go_on: bool) -> None:
        if rank not in self._left:
            self._left.append(rank)
        if self._all_ended:
            self._reports.let_go()
        elif rank.failed and not others_go_on:
            self._stop_within(GRACE_S)

    @property
    def _all_ended(self) -> bool:
        return len(self._ranks) == self._size and all(rank.status is not None for rank in self._ranks.values())

    def _stop_within(self, seconds: float) -> None:
        self._stop_at = min(self._stop_at, time.monotonic() + seconds)

    def _forward_signals(self) -> None:
        while self._signals:
            number = self._signals.popleft()
            self._reports.signal(number)
            if number in TERMINATING:
                self._stop_within(0 if self._ended_by or not self._connected else GRACE_S)
                self._ended_by = self._ended_by or number

    def _enforce_deadlines(self, mpirun: subprocess.Popen[bytes], deadline: float) -> None:
        now = time.monotonic()
        if self._output.error and not self._ended_by:  # `mlxdist launch ... | head`, or a full disk
            self._ended_by = signal.SIGPIPE
            self._stop_within(0)
        if mpirun.poll() is not None or (self._all_ended and not self._connected):
            self._stop_within(GRACE_S)
        if now >= deadline and not (self._timed_out or self._all_ended):
            self._timed_out = self._still_running()
            self._stop_within(0)
        if now >= self._stop_at and self._kill_at == math.inf:
            self._kill_at = now + GRACE_S
            self._reports.let_go()
            mpirun.terminate()
        if now >= self._kill_at:
            mpirun.kill()
            if self._given_up or self._output.idle_s() > GRACE_S:
                self._connected.clear()  # ranks on hosts that do not answer, or a reader that does not read

    def _still_running(self) -> str:
        running = [f"{rank} (pid {rank.pid})" for rank in self._ranks.values() if rank.status is None]
        missing = self._size - len(self._ranks)
        return ", ".join([*running, *([f"{missing} that had not started"] if missing else [])]) or "mpirun"

    def _outcome(self, mpirun_status: int, timeout_s: float) -> tuple[int, str]:
        """The exit status, and a sentence about it."""
        if self._timed_out:
            return TIMED_OUT, f"timed out after {timeout_s:g} s, with these still running: {self._timed_out}"
        if isinstance(self._output.error, BrokenPipeError):
            return 128 + signal.SIGPIPE, ""
        if self._output.error:
            return 1, f"the output cannot be written: {self._output.error.strerror}"
        if self._ended_by:
            return 128 + self._ended_by, f"ended by {signal.Signals(self._ended_by).name}"
        self._left += [rank for rank in self._ranks.values() if rank.status is None and rank not in self._left]
        if failed := [rank for rank in self._left if rank.failed]:
            first = min(failed, key=lambda rank: rank.follows)
            words = f"{first} {first.end}"
            if first.follows and (gone := [rank for rank in self._left if rank.gone]):
                words += f", after {gone[0]} had left"
            last = self._output.last(first.number)
            status = 1 if first.status is None else shell_status(first.status)
            return status, words + (f"; last: {' | '.join(last)}" if last else "")
        # An mpirun may complain of a rank that ends without finalize().
        if not self._all_ended or (mpirun_status and any(rank.stopped for rank in self._ranks.values())):
            when = "although no rank failed" if self._ranks else "before any rank started"
            status = shell_status(mpirun_status)
            return status or 1, f"mpirun ended with status {status} {when}"
        return 0, ""


@contextlib.contextmanager
def _queued(signals: deque[int]) -> Iterator[None]:
    """Signals for the ranks go to a queue; those that nohup has this process ignore are still ignored."""
    handled = [number for number in FORWARDED if signal.getsignal(number) != signal.SIG_IGN]
    earlier = {number: signal.signal(number, lambda number, _: signals.append(number)) for number in handled}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
