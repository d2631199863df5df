"""What `mlxdist bench` reckons with: hosts, the least bytes between them, the wire, and the time of a run."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter
from pathlib import Path

import macos
import numpy as np
import pytest

from mlxdist.cli.bench import cases, hosts, measure, report, wire
from mlxdist.cli.bench.cases import Case
from mlxdist.cli.bench.hosts import Hosts
from mlxdist.cli.bench.wire import Wire
from mlxdist.mpi.launchers import LibraryInfo

PLACEMENTS = ((0, 1), (0, 0, 1, 1), (0, 1, 0, 1), (0, 0, 0, 1), (0, 1, 2), (0, 1, 1, 2), (0, 1, 2, 3))


def placed(host_of: tuple[int, ...]) -> Hosts:
    return hosts.grouped([(f"host{host}", "") for host in host_of])


def case_of(operation: str, size: int) -> Case:
    return Case(operation, False, np.dtype(np.float32), 12 * size, size)


def messages(case: Case, host_of: tuple[int, ...]) -> list[tuple[int, int, float]]:
    """One message after the other, of a way that sends nothing twice: from which host, to which, and its bytes."""
    every, nbytes = range(max(host_of) + 1), case.nbytes
    pairs = [(here, there) for here in every for there in every if here != there]
    match case.operation:
        case "all_sum":  # each host adds up one part, and sends it to all others
            return [(*pair, nbytes / len(every)) for pair in pairs] * 2
        case "all_gather":
            return [(home, there, nbytes) for home in host_of for there in every if there != home]
        case "sum_scatter":  # each host adds up what its ranks have for a rank of another
            return [(here, home, nbytes / len(host_of)) for home in host_of for here in every if here != home]
        case "all_to_all":
            return [(here, there, nbytes / len(host_of)) for here in host_of for there in host_of if here != there]
        case "gather":
            return [(home, 0, nbytes) for home in host_of if home]
        case "scatter":
            return [(0, home, nbytes / len(host_of)) for home in host_of if home]
        case "reduce":  # from host to host, each adding its own
            return [(here + 1, here, nbytes) for here in every[:-1]]
    return [(here, here + 1, nbytes) for here in every[:-1]]  # broadcast, from host to host


@pytest.mark.parametrize("host_of", PLACEMENTS, ids=str)
@pytest.mark.parametrize("operation", sorted({operation for operation, _ in cases.OPERATIONS.values()}))
def test_least_bytes(operation: str, host_of: tuple[int, ...]) -> None:
    case = case_of(operation, len(host_of))
    sent, received = Counter[int](), Counter[int]()
    for here, there, nbytes in messages(case, host_of):
        sent[here] += nbytes
        received[there] += nbytes
    found = hosts.least(case, placed(host_of))
    if operation in ("broadcast", "reduce"):  # which host sends nothing, or receives nothing, is open
        assert {host.sent for host in found} == {host.received for host in found} == {max(sent.values())}
        return
    assert [host.sent for host in found] == pytest.approx([sent[host] for host in range(len(found))])
    assert [host.received for host in found] == pytest.approx([received[host] for host in range(len(found))])


def test_hosts_of_the_same_name_differ_by_their_boot() -> None:
    found = hosts.grouped([("a", "1"), ("b", "2"), ("a", "1"), ("a", "3")])
    assert found.names == ("a", "b", "a")
    assert found.host_of == (0, 1, 0, 2)
    assert found.ranks == [2, 1, 1]
    assert found.leaders == [0, 1, 3]
    assert str(found) == "3 hosts, 2 + 1 + 1"
    assert str(placed((0, 1, 0, 1))) == "2 hosts, 2 on each"


def test_share_of_the_wire() -> None:
    """3 ranks on the first host, which sends their inputs and receives one: 3 MB at 24 MB/s."""
    case = Case("all_gather", False, np.dtype(np.float32), 250_000, 4)
    result = report.Result(case, rounds_s={"mlxdist": [0.25, 0.9, 0.1]}, sent={"mlxdist": [3e6, 2e6]})
    result.use_wire(Wire(placed((0, 0, 0, 1)), rates=(24e6, 25e6)))
    assert result.bound_s == pytest.approx(0.125)
    assert result.share("mlxdist") == pytest.approx(0.5)
    assert result.sent_ratio("mlxdist") == pytest.approx(2), "the second host sends twice the least"
    assert result.share("raw C") is result.sent_ratio("raw C") is None


def test_no_share_without_a_wire() -> None:
    result = report.Result(case_of("all_sum", 2), rounds_s={"mlxdist": [1.0]})
    result.use_wire(Wire(placed((0, 1)), why="no route"))
    assert result.share("mlxdist") is None
    assert [column[:2] for column in report.table([result])] == [
        ["", "bytes"],
        ["mlxdist", "us"],
        ["raw C /", "mlxdist"],
    ]


def test_columns_have_one_unit() -> None:
    every, times_s = cases.cases("all_sum", np.dtype(np.float32), 4, 1 << 20, 2), np.geomspace(1e-6, 1, 10)
    results = [
        report.Result(case, rounds_s={"mlxdist": [seconds], "raw C": [2 * seconds]})
        for case, seconds in zip(every, times_s, strict=True)
    ]
    results[-1].use_memory([[0.4], [0.6, 0.5, 0.7]])
    columns = report.table(results)
    assert [column[:2] for column in columns] == [
        ["", "bytes"],
        ["mlxdist", "us"],
        ["", "memory"],
        ["raw C", "us"],
        ["", "memory"],
        ["memory", "us"],
        ["raw C /", "mlxdist"],
    ]
    assert [float(cell.replace(",", "")) for cell in columns[1][2:]] == pytest.approx(1e6 * times_s, rel=0.01)
    assert columns[2][-1] == "40%"
    assert set(columns[2][2:-1]) == {""}
    assert set(columns[-1][2:]) == {"2.00"}


@pytest.mark.parametrize("bound", ["memory", "wire"])
def test_the_bound_is_a_line_in_the_plot(bound: str, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    every = [report.Result(case, {"mlxdist": [1.0]}) for case in cases.cases("all_sum", np.dtype("f4"), 4, 64, 2)]
    for result in every if bound == "wire" else every[-1:]:
        if bound == "wire":
            result.use_wire(Wire(placed((0, 1)), rates=(100.0, 100.0)))
        else:
            result.use_memory([[0.5]])
    written = tmp_path / "plot.svg"
    report.plot(every, "MPICH 5.0.2\nbusy", written)
    texts = re.findall(r"<text[^>]*>([^<]+)</text>", written.read_text())
    assert {bound, f"{bound}, the bound", "mlxdist", "16 B", "all_sum float32", "busy"} <= {*texts}
    assert ("% of the wire" in texts) == (bound == "wire")


def test_a_burst_at_the_beginning_does_not_count() -> None:
    """A megabyte at once, then a megabyte in a second."""
    (to, drained), (feeding, source) = socket.socketpair(), socket.socketpair()
    began = time.monotonic()

    def drain() -> None:
        with drained:
            while time.monotonic() < began + wire.WARM_S + wire.MEASURED_S:
                drained.recv(1 << 20)

    def feed() -> None:
        with feeding, contextlib.suppress(OSError):  # the reader has seen enough
            feeding.sendall(bytes(1 << 20))
            while True:
                time.sleep(0.01)
                feeding.sendall(bytes(10_000))

    threads = [threading.Thread(target=drain), threading.Thread(target=feed)]
    for thread in threads:
        thread.start()
    with to:
        rate = wire.stream(to, source)
    for thread in threads:
        thread.join()
    assert 0 < rate < 1.5e6


def test_the_longest_cases_are_left_out_if_they_would_take_too_long() -> None:
    """At 1 MiB/s, each of 4 backends with 3 calls; the cases have 21.3 MiB together, 5.3 MiB without the longest."""
    every = cases.cases("all_gather", np.dtype(np.float32), 1 << 10, 1 << 24, 2)
    for seconds, longest in ((12 * 22, 1 << 24), (12 * 21, 1 << 22), (12 * 5, 1 << 20), (1, 1 << 16)):
        kept = measure.fitting(every, seconds, 4, Wire(placed((0, 1)), rates=(1 << 20, 2 << 20)))
        assert kept == [case for case in every if case.nbytes <= longest]
    assert measure.fitting(every, 1, 4, None) == every
    assert len(measure.fitting(every, 0.0001, 4, Wire(placed((0, 1)), rates=(1 << 20,)))) == 1


def test_what_one_case_saves_the_others_get(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    monkeypatch.setattr("mlxdist.broadcast", lambda x, src: x)
    every = cases.cases("all_gather", np.dtype(np.float32), 1 << 10, 1 << 24, 2)
    limits = measure.Limits(every, 40, None)
    given = []
    for case in every:
        given.append(limits.next_s(case))
        now += given[-1] / 2
    assert given == sorted(given)
    assert 20 < given[-1] < 40
    now -= given[-1] / 2
    assert now + given[-1] == pytest.approx(40), "the last may use what is left"


@pytest.mark.parametrize(
    ("family", "text", "title"),
    [
        ("mpich", "MPICH Version:      5.0.2\nMPICH Release date: ...", "MPICH 5.0.2"),
        ("openmpi", "Open MPI v5.0.11, package: Open MPI", "Open MPI 5.0.11"),
        ("mpich", "Intel(R) MPI Library 2021.18 for Linux* OS", "Intel MPI 2021.18"),
    ],
)
def test_titles(family: str, text: str, title: str) -> None:
    assert LibraryInfo("/lib/libmpi.so", family, text).title == title


def test_bytes_sent_by_interface_on_macos(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "printed").write_text(macos.NETSTAT)
    monkeypatch.setattr(wire, "COUNTERS", tmp_path / "none")
    monkeypatch.setattr(wire, "NETSTAT", ("cat", str(tmp_path / "printed")))
    assert wire.sent_by_interface() == {
        "lo0": 96482143,
        "gif0": 0,
        "en0": 2147483999,
        "en8": 0,
        "bridge0": 1412398734,
        "utun4": 227631,
    }


@pytest.mark.parametrize("command", [("/nowhere/netstat",), ("false",), ("echo", "en0 1500 <Link#1> 5")])
def test_bytes_sent_are_not_known(command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(wire, "COUNTERS", tmp_path / "none")
    monkeypatch.setattr(wire, "NETSTAT", command)
    assert wire.sent_by_interface() == {}


@pytest.mark.skipif(not wire.COUNTERS.exists(), reason="asks Linux")
def test_bytes_sent_by_interface() -> None:
    before = wire.sent_by_interface()["lo"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(bytes(1000), ("127.0.0.1", 9))
    assert wire.sent_by_interface()["lo"] >= before + 1000


def test_boots_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert hosts.boot() == hosts.boot() != "" or not hosts.BOOT_ID.exists()
    monkeypatch.setattr(hosts, "BOOT_ID", tmp_path / "none")
    monkeypatch.setattr(hosts, "BOOT_SESSION", ("echo", "6F2B9D0C-3B1E-4F0A-9F77-2A5B7C1D8E90"))
    assert hosts.boot() == "6F2B9D0C-3B1E-4F0A-9F77-2A5B7C1D8E90"
    monkeypatch.setattr(hosts, "BOOT_SESSION", ("/nowhere/sysctl",))
    assert hosts.boot() == ""
