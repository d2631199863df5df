"""What the ranks print, line by line, each with its rank in front."""

from __future__ import annotations

import re
import sys
import time
from collections import defaultdict, deque

from mlxdist.cli.launch.rank import ENCODING

PARTIAL_S = 0.2  # a line that is still without its end after this time is shown as it is
LAST_LINES = 3
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)")  # a progress bar ends its lines with \r

Source = tuple[int, str]  # rank, and "out" or "err"


class Output:
    """Writes what ranks print to this process's own stdout and stderr, and keeps the last lines of each."""

    def __init__(self, prefixed: bool) -> None:
        self._prefixed = prefixed
        self._last: dict[int, deque[str]] = defaultdict(lambda: deque(maxlen=LAST_LINES))
        self._partial: dict[Source, tuple[str, float]] = {}  # lines without an end, and since when
        self._open: Source | None = None  # whose line has been shown without its end

    def write(self, rank: int, kind: str, text: str) -> None:
        """Show the complete lines of what ``rank`` has printed on ``kind``, "out" or "err"."""
        source = rank, kind
        partial, since = self._partial.pop(source, ("", time.monotonic()))
        text = partial + text
        lines = _LINE.findall(text)
        self._show(source, lines)
        if rest := text[sum(map(len, lines)) :]:
            self._partial[source] = rest, time.monotonic() if lines else since

    def show_partial(self, after_s: float = PARTIAL_S) -> None:
        """Show lines without an end, such as prompts, that are at least ``after_s`` old."""
        for source, (text, since) in list(self._partial.items()):
            if time.monotonic() - since >= after_s:
                del self._partial[source]
                self._show(source, [text])

    def close(self) -> None:
        """Show what is left."""
        self.show_partial(0)
        self._end_open_line()

    def last(self, rank: int) -> list[str]:
        """The last lines of ``rank`` that contain a word."""
        return [line.encode(ENCODING).decode(errors="replace") for line in self._last[rank]]

    def _end_open_line(self) -> None:
        if self._open:
            _write(self._open[1], "\n")
            self._open = None

    def _show(self, source: Source, lines: list[str]) -> None:
        if not lines:
            return
        if self._open != source:
            self._end_open_line()
        rank, kind = source
        prefix = f"[{rank}] " if self._prefixed else ""
        _write(kind, ("" if self._open else prefix) + prefix.join(lines))
        self._open = None if lines[-1].endswith(("\n", "\r")) else source
        self._last[rank].extend(line.strip() for line in lines if re.search(r"\w", line))


def _write(kind: str, text: str) -> None:
    stream = (sys.stdout if kind == "out" else sys.stderr).buffer
    stream.write(text.encode(ENCODING))
    stream.flush()
