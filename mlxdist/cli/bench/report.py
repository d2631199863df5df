"""The results of a measurement, as a table, as JSON and as a plot."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlxdist.cli.bench.backends import RAW
from mlxdist.cli.bench.cases import Case

RATE_FROM = 32 << 10  # bytes: shorter messages are shown by their time, longer ones by their bandwidth


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
        copies_s: the same for copies of memory by all ranks at the same time.
        skipped: for each backend that did not run, the reason.
        checked: the results were compared with NumPy's.
    """

    case: Case
    rounds_s: dict[str, list[float]] = field(default_factory=dict)
    copies_s: dict[str, list[float]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    checked: bool = False

    def median_s(self, name: str) -> float | None:
        """The median of a backend's rounds; None if it did not run."""
        return statistics.median(self.rounds_s[name]) if name in self.rounds_s else None

    @property
    def bound_s(self) -> float | None:
        """What the operation takes if each byte goes through memory once, at the speed of the best copy."""
        if not self.copies_s:
            return None
        best = min(statistics.median(rounds) for rounds in self.copies_s.values())
        return best * self.case.moved_nbytes / (2 * self.case.nbytes)

    def as_json(self) -> dict[str, Any]:
        """Everything, with times in microseconds."""
        bound_s = self.bound_s
        return {
            "operation": self.case.operation,
            "in_place": self.case.in_place,
            "dtype": self.case.dtype.name,
            "nbytes": self.case.nbytes,
            "median_us": {name: 1e6 * statistics.median(rounds) for name, rounds in self.rounds_s.items()},
            "rounds_us": {name: [1e6 * t for t in rounds] for name, rounds in self.rounds_s.items()},
            "bound_us": None if bound_s is None else 1e6 * bound_s,
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
    """The rows of cases that differ only in size; the first is the header."""
    columns = names(results)
    bounded = any(result.copies_s for result in results)
    rows = [["bytes", *columns, *(["memory bound"] if bounded else []), "raw C / mlxdist"]]
    for result in results:
        nbytes, bound_s = result.case.nbytes, result.bound_s
        cells = [format_bytes(nbytes)]
        for name in columns:
            median_s = result.median_s(name)
            cells.append("-" if median_s is None else _cell(nbytes, median_s, bound_s))
        if bounded:
            cells.append("" if bound_s is None else f"{nbytes / bound_s / 1e9:.2f}")
        ours, raw = result.median_s("mlxdist"), result.median_s(RAW)
        cells.append(f"{raw / ours:.2f}" if raw and ours else "")
        rows.append(cells)
    return rows


def _cell(nbytes: int, median_s: float, bound_s: float | None) -> str:
    if nbytes < RATE_FROM:
        return f"{median_s * 1e6:.2f} us"
    share = f" {bound_s / median_s:4.0%}" if bound_s and median_s else ""
    return f"{nbytes / max(median_s, 1e-12) / 1e9:.2f}{share}"


def print_table(heading: str, rows: list[list[str]]) -> None:
    """Print a table with rich if it is installed, else in plain columns."""
    try:
        from rich.console import Console
        from rich.table import Table
    except ImportError:
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        print(heading)
        for row in rows:
            print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))
        print(flush=True)
        return
    drawn = Table(title=heading, title_justify="left")
    for name in rows[0]:
        drawn.add_column(name, justify="right", no_wrap=True)
    for row in rows[1:]:
        drawn.add_row(*row)
    console = Console()
    # The output of a rank is a pipe, which has no width.
    needed = sum(max(map(len, column)) + 3 for column in zip(*rows, strict=True)) + 1
    Console(width=max(console.width, needed)).print(drawn)


def can_plot(path: Path) -> bool:
    """Whether matplotlib knows the format that the name of a file ends in."""
    from matplotlib.backend_bases import FigureCanvasBase

    return path.suffix[1:].lower() in FigureCanvasBase.get_supported_filetypes()


def plot(results: list[Result], heading: str, path: Path) -> None:
    """Plot bandwidth against size, with a panel for each operation and dtype."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(title(result.case), []).append(result)
    figure, panels = pyplot.subplots(1, len(groups), figsize=(7 * len(groups), 5), squeeze=False, sharey=True)
    color = {name: f"C{number}" for number, name in enumerate(names(results))}
    for axes, (name, members) in zip(panels[0], groups.items(), strict=True):
        for backend in names(members):
            points = [(r.case.nbytes, r.case.nbytes / t / 1e9) for r in members if (t := r.median_s(backend))]
            axes.plot(*zip(*points, strict=True), color=color[backend], marker="o", markersize=3, label=backend)
        bound = [(r.case.nbytes, r.case.nbytes / t / 1e9) for r in members if (t := r.bound_s)]
        if bound:
            axes.plot(*zip(*bound, strict=True), color="black", linestyle="--", label="memory bound")
        axes.set(title=name, xlabel="bytes", xscale="log", yscale="log")
        axes.grid(alpha=0.3)
        axes.legend()
    panels[0][0].set_ylabel("GB/s")
    figure.suptitle(heading)
    figure.tight_layout()
    figure.savefig(path, dpi=120)
