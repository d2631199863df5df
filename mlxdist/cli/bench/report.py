"""The results of a measurement, as a table, as JSON and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxdist.cli.bench import hosts
from mlxdist.cli.bench.backends import RAW
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.wire import Wire


def format_bytes(nbytes: float) -> str:
    """``nbytes`` with a unit, like 64 KiB."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if nbytes < 1024 or unit == "GiB":
            break
        nbytes /= 1024
    return f"{nbytes:.4g} {unit}"


@dataclass
class Result:
    """One case.

    Attributes:
        rounds_s: for each backend, seconds per call of the slowest rank in each round.
        bound: what the operation cannot be faster than: "memory" or "wire"; empty if neither was measured.
        bound_s: the time that this would take.
        sent: for each backend, the bytes that each host sent to others per call; empty if that is not known.
        least_sent: the least that each host has to send.
        skipped: for each backend that did not run, the reason.
        checked: the results were compared with NumPy's.
    """

    case: Case
    rounds_s: dict[str, list[float]] = field(default_factory=dict)
    bound: str = ""
    bound_s: float | None = None
    sent: dict[str, list[float]] = field(default_factory=dict)
    least_sent: Sequence[float] = ()
    skipped: dict[str, str] = field(default_factory=dict)
    checked: bool = False

    def use_memory(self, copies_s: Sequence[Sequence[float]]) -> None:
        """The bound is each byte's way through memory, from rounds of copies of the input by all ranks at a time."""
        best = min(map(statistics.median, copies_s))
        self.bound, self.bound_s = "memory", best * self.case.moved_nbytes / (2 * self.case.nbytes)

    def use_wire(self, wire: Wire) -> None:
        """The bound is the way of the least bytes between the hosts."""
        self.least_sent = [host.sent for host in hosts.least(self.case, wire.hosts)]
        if not wire.why:
            self.bound, self.bound_s = "wire", wire.least_s(self.case)

    def median_s(self, name: str) -> float | None:
        """The median of a backend's rounds; None if it did not run."""
        return statistics.median(self.rounds_s[name]) if name in self.rounds_s else None

    def share(self, name: str) -> float | None:
        """The part of the bound that a backend reaches: 1 is as fast as it."""
        median_s = self.median_s(name)
        return self.bound_s / median_s if self.bound_s and median_s else None

    def sent_ratio(self, name: str) -> float | None:
        """What a host sends with a backend, beside the least: the largest of all hosts."""
        if name not in self.sent:
            return None
        return max(sent / least for sent, least in zip(self.sent[name], self.least_sent, strict=True))

    def is_sent_elsewhere(self, name: str) -> bool:
        """Whether less than the least has passed the interface that was measured, so that it took another."""
        ratio = self.sent_ratio(name)
        return ratio is not None and ratio < 0.9

    def as_json(self) -> dict[str, Any]:
        """Everything, with times in microseconds."""
        return {
            "operation": self.case.operation,
            "in_place": self.case.in_place,
            "dtype": self.case.dtype.name,
            "nbytes": self.case.nbytes,
            "median_us": {name: 1e6 * statistics.median(rounds) for name, rounds in self.rounds_s.items()},
            "rounds_us": {name: [1e6 * t for t in rounds] for name, rounds in self.rounds_s.items()},
            "bound": self.bound,
            "bound_us": None if self.bound_s is None else 1e6 * self.bound_s,
            "sent": self.sent,
            "least_sent": list(self.least_sent),
            "skipped": self.skipped,
            "checked": self.checked,
        }


def title(case: Case) -> str:
    """The heading of a table, like: all_sum float32, in place."""
    return f"{case.operation} {case.dtype.name}" + (
        ", in place" if case.in_place and case.operation == "all_sum" else ""
    )


def names(results: Iterable[Result]) -> list[str]:
    """The backends that ran in any of them, in their order."""
    return list(dict.fromkeys(name for result in results for name in result.rounds_s))


def table(results: list[Result]) -> list[list[str]]:
    """The columns of cases that differ only in size: what each is about, its unit, and a figure for each case."""
    bound = next((result.bound for result in results if result.bound), "")
    columns = [["", "bytes", *(format_bytes(result.case.nbytes) for result in results)]]
    for name in names(results):
        of_name = [
            [name, "us", *(_us(result.median_s(name)) for result in results)],
            ["", bound, *(_number(result.share(name), ".0%") for result in results)],
            ["", "sent", *(_number(result.sent_ratio(name), ".2f") for result in results)],
        ]
        columns += [column for column in of_name if column[0] or any(column[2:])]
    if bound:
        columns.append([bound, "us", *(_us(result.bound_s) for result in results)])
    ratios = [(result.median_s(RAW), result.median_s("mlxdist")) for result in results]
    columns.append([f"{RAW} /", "mlxdist", *(_number(raw and ours and raw / ours, ".2f") for raw, ours in ratios)])
    return columns


def _number(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _us(seconds: float | None) -> str:
    return _number(seconds and seconds * 1e6, ",.2f" if (seconds or 0) < 1e-4 else ",.0f")


def print_table(heading: str, columns: list[list[str]]) -> None:
    """Print a table with rich if it is installed, else in plain columns."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in columns]
        print(heading)
        for row in zip(*columns, strict=True):
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        print(flush=True)
        return
    drawn = Table(title=heading, title_justify="left")
    for about, unit, *_ in columns:
        drawn.add_column(f"{about}\n{unit}", justify="right", no_wrap=True)
    for row in zip(*(column[2:] for column in columns), strict=True):
        drawn.add_row(*row)
    console = Console()
    # The output of a rank is a pipe, which has no width.
    needed = sum(max(map(len, column)) + 3 for column in columns) + 1
    Console(width=max(console.width, needed)).print(drawn)


def can_plot(path: Path) -> bool:
    """Whether matplotlib knows the format that the name of a file ends in."""
    from matplotlib.backend_bases import FigureCanvasBase

    return path.suffix[1:].lower() in FigureCanvasBase.get_supported_filetypes()


def plot(results: list[Result], heading: str, path: Path) -> None:
    """Plot shares of the wire, or MB/s if it was not measured, with a panel for each operation and dtype."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text as text, which takes less room
    from matplotlib import pyplot, ticker

    of_wire = all(result.bound == "wire" for result in results)
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(title(result.case), []).append(result)
    across = min(len(groups), 2)
    down = -(-len(groups) // across)
    figure, panels = pyplot.subplots(down, across, figsize=(6 * across, 4 * down), squeeze=False, sharey=True)
    for axes in panels.flat[len(groups) :]:
        axes.remove()
    color = {name: f"C{number}" for number, name in enumerate(names(results))}
    for axes, (name, members) in zip(panels.flat, groups.items(), strict=False):
        for backend in names(members):
            points = [(r.case.nbytes, _height(r, t, of_wire)) for r in members if (t := r.median_s(backend))]
            axes.plot(*zip(*points, strict=True), color=color[backend], marker="o", markersize=3, label=backend)
        bound = [(r.case.nbytes, _height(r, r.bound_s, of_wire)) for r in members if r.bound_s]
        if bound:
            what = next(r.bound for r in members if r.bound)
            # A marker, since a single point makes no line.
            axes.plot(*zip(*bound, strict=True), color="black", linestyle="--", marker="_", label=f"{what}, the bound")
            axes.annotate(what, bound[0], (0, 4), textcoords="offset points", fontweight="bold")
        axes.set(title=name, xlabel="each rank's input", xscale="log", yscale="linear" if of_wire else "log")
        nbytes = [result.case.nbytes for result in members]
        axes.set_xticks(nbytes, map(format_bytes, nbytes), rotation=45, ha="right")
        axes.minorticks_off()
        axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        axes.grid(alpha=0.3)
    for axes in panels[:, 0]:
        axes.set_ylabel("% of the wire" if of_wire else "MB/s: input / time")
    if of_wire:
        panels[0][0].set_ylim(bottom=0)
    panels[0][0].legend(fontsize="small")
    figure.suptitle(heading, fontsize="medium")
    figure.tight_layout()
    figure.savefig(path, dpi=100)


def _height(result: Result, seconds: float, of_wire: bool) -> float:
    return 100 * (result.bound_s or 0) / seconds if of_wire else result.case.nbytes / seconds / 1e6
