"""How `mlxdist launch` shows what ranks print: by lines, each with its rank in front, and not a byte more or less."""

from __future__ import annotations

import json
import os
import random
import re
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from mlxdist.cli.launch import output, rank
from mlxdist.cli.launch.output import Output, Stream
from mlxdist.cli.launch.reports import Reports


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines without an end are not shown because of the time."""
    monkeypatch.setattr(output, "PARTIAL_S", 1e9)


@pytest.mark.usefixtures("patient")
def test_lines_have_their_rank_in_front(capfd: pytest.CaptureFixture[str]) -> None:
    shown = Output(prefixed=True)
    first, other, errors = Stream(shown, 0, "out"), Stream(shown, 1, "out"), Stream(shown, 1, "err")
    first.write(b"one\ntw")
    other.write(b"other\n")
    first.write(b"o\n")
    errors.write(b"bar 1\rbar 2\rdone\r")
    errors.write(b"\n^^^^\nrest")
    errors.show_partial()
    shown.close("")
    printed = capfd.readouterr()
    assert printed.out == "[0] one\n[1] other\n[0] two\n"
    assert printed.err == "[1] bar 1\r[1] bar 2\r[1] done\r\n[1] ^^^^\n[1] rest\n"
    assert shown.last(0) == ["one", "two"]
    assert shown.last(1) == ["bar 2", "done", "rest"]
    assert shown.last(2) == []


@pytest.mark.usefixtures("patient")
def test_a_prompt_is_shown_before_its_line_ends(capfd: pytest.CaptureFixture[str]) -> None:
    shown = Output(prefixed=True)
    first, other = Stream(shown, 0, "out"), Stream(shown, 1, "out")
    first.write(b"name? ")
    assert capfd.readouterr().out == ""
    first.show_partial()
    assert capfd.readouterr().out == "[0] name? "
    first.write(b"thanks\n")
    first.write(b"more? ")
    first.show_partial()
    other.write(b"another\n")
    assert capfd.readouterr().out == "thanks\n[0] more? \n[1] another\n"


@pytest.mark.usefixtures("patient")
def test_without_a_prefix_no_byte_is_added(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    shown = Output(prefixed=False)
    first, other = Stream(shown, 0, "out"), Stream(shown, 1, "out")
    first.write("ä\n".encode() + b"\xff\nno end")
    first.show_partial()
    other.write(b"other\n")
    first.write(b"\0")
    first.show_partial()
    shown.close("")
    assert capfdbinary.readouterr().out == b"\xc3\xa4\n\xff\nno endother\n\0"
    assert shown.last(0) == ["ä", "�", "no end"]


def test_what_comes_in_pieces_is_shown_whole(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """Random lines, cut at random places: all bytes, and every line has its prefix."""
    draw = random.Random(1)
    text = b"".join(b"x" * draw.choice((0, 1, 50, 3000)) + draw.choice((b"\n", b"\r", b"\r\n")) for _ in range(2000))
    for prefixed in (False, True):
        shown = Output(prefixed)
        stream, at = Stream(shown, 3, "out"), 0
        while at < len(text):
            size = draw.choice((1, 7, 5000))
            stream.write(text[at : at + size])
            at += size
        stream.show_partial()
        printed = capfdbinary.readouterr().out
        assert printed == (re.sub(rb"[^\r\n]*(\r\n|\r|\n)", rb"[3] \g<0>", text) if prefixed else text)


@pytest.mark.parametrize("piece", [1 << 16, 1])
def test_the_time_for_a_long_line_grows_with_its_length(piece: int, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    size = 4 << 20 if piece > 1 else 100_000
    stream = Stream(Output(prefixed=True), 0, "out")
    began = time.process_time()
    for _ in range(size // piece):
        stream.write(b"x" * piece)
        assert len(stream.partial) < output.LONGEST_LINE + piece
    stream.show_partial()
    assert time.process_time() - began < 5, "a quadratic search takes minutes"
    assert capfdbinary.readouterr().out == b"[0] " + b"x" * size


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ends = socket.socketpair()
    yield ends
    for end in ends:
        end.close()


def test_dots_are_shown_while_they_come(
    pair: tuple[socket.socket, socket.socket], capfd: pytest.CaptureFixture[str]
) -> None:
    """Although there is always something to read, and never the end of a line."""
    threading.Thread(target=Output(prefixed=True).copy, args=(0, "out", pair[0]), daemon=True).start()
    shown, sent, until = "", 0, time.monotonic() + 20
    while len(shown) < 60 and time.monotonic() < until:
        pair[1].sendall(b".")
        sent += 1
        time.sleep(0.01)
        shown += capfd.readouterr().out
    assert len(shown) >= 60
    assert re.fullmatch(r"\[0\] \.+", shown)


def test_a_terminal_that_is_not_blocking(monkeypatch: pytest.MonkeyPatch) -> None:
    """As ssh leaves one that it shares."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    monkeypatch.setitem(output.DESCRIPTORS, "out", writing)
    stream = Stream(Output(prefixed=False), 0, "out")
    printing = threading.Thread(target=stream.write, args=(b"x" * 500_000 + b"\n",), daemon=True)
    printing.start()
    got = 0
    while got < 500_001 and select.select([reading], [], [], 10)[0]:
        got += len(os.read(reading, 1 << 16))
    printing.join(10)
    assert got == 500_001
    assert not printing.is_alive()
    os.close(reading)
    os.close(writing)


def test_strangers_do_not_keep_a_rank_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """They say nothing, too little for long, or something else; a rank gets an answer meanwhile."""
    monkeypatch.setattr("mlxdist.cli.launch.reports.MOST_STRANGERS", 20)
    reports = Reports(1, [], Output(prefixed=False))
    contact = json.loads(reports.contact)
    ((host, port),) = contact["addresses"]
    place = host, port
    assert host == "127.0.0.1", "all ranks are here"
    strangers = [socket.create_connection(place) for _ in range(100)]
    wrong = socket.create_connection(place)
    wrong.sendall(b'["no token", "reports", 0, "host"]\n')
    deep = socket.create_connection(place)
    deep.sendall(b"[" * 999 + b"\n")
    with rank.connect(contact, "reports", 0) as stream:
        assert reports.queue.get(timeout=10).kind == "connected"
        for refused in (*strangers[:50], wrong, deep):
            refused.settimeout(10)
            assert refused.recv(1) == b""
        stream.sendall(b'["started", 5]\n')
        assert reports.queue.get(timeout=10).values == [5]
