"""One end of the links between hosts: measures those to other hosts, and answers those who measure the link to it.

    python -IS link.py

mlxdist doctor runs it on each host, by its path; it imports the standard library only. Its first line says how the
others can reach it. Then each line that it reads asks for a measurement, and it prints the result; each is JSON.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import select
import socket
import statistics
import struct
import sys
import threading
import time
from typing import Any

MARK = "mlxdist.link: "  # in front of the JSON, since a login script may print other lines
CONNECT_S = 3.0
ROUND_TRIPS, ROUND_TRIPS_S = 200, 0.2  # at most
WARM_UP_S, STREAM_S = 0.1, 0.4  # TCP begins slowly
SILENCE_S = 3.0
PIECE = 1 << 18
STREAM = b"s"  # any other byte is sent back


def serve(stream: socket.socket, token: bytes) -> None:
    """Be the other end of one measurement: send back single bytes, then say how fast the stream comes in."""
    with stream, contextlib.suppress(OSError):
        stream.settimeout(SILENCE_S)
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if not secrets.compare_digest(stream.recv(len(token), socket.MSG_WAITALL), token):
            return
        while (byte := stream.recv(1)) != STREAM:
            if not byte:
                return
            stream.sendall(byte)
        stream.sendall(b"%d\n" % bytes_per_s(stream))
        while stream.recv(PIECE):
            pass


def bytes_per_s(stream: socket.socket) -> float:
    """How fast ``stream`` comes in after the warm-up."""
    place, total = bytearray(PIECE), 0
    began = time.monotonic() + WARM_UP_S
    while (now := time.monotonic()) < began + STREAM_S:
        if not (many := stream.recv_into(place)):
            break
        if now > began:
            total += many
    return total / (time.monotonic() - began)


def measure(addresses: list[str], port: int, token: str) -> dict[str, Any]:
    """The addresses that the link to another host connects, round trip and rate; or why there is no link."""
    why = "its name is not known"
    for address in addresses:
        try:
            with socket.create_connection((address, port), CONNECT_S) as stream:
                stream.settimeout(SILENCE_S)
                stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                # What is still to be sent at the end would disturb the next measurement.
                stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                stream.sendall(token.encode())
                return {
                    "addresses": [stream.getsockname()[0], stream.getpeername()[0]],
                    "round_trip_s": round_trip_s(stream),
                    "bytes_per_s": rate(stream),
                }
        except (OSError, ValueError) as error:
            why = f"{address}: {getattr(error, 'strerror', None) or error}"
    return {"why": why}


def round_trip_s(stream: socket.socket) -> float:
    """The median time until a byte comes back."""
    times: list[float] = []
    until = time.monotonic() + ROUND_TRIPS_S
    while not times or (len(times) < ROUND_TRIPS and time.monotonic() < until):
        began = time.perf_counter()
        stream.sendall(b"e")
        if not stream.recv(1):
            raise ConnectionResetError("the other end refused the connection")
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def rate(stream: socket.socket) -> int:
    """Bytes per second, as the other end counts them while this one sends what it can."""
    stream.sendall(STREAM)
    piece = bytes(PIECE)
    stream.setblocking(False)
    until = time.monotonic() + WARM_UP_S + STREAM_S + SILENCE_S
    while time.monotonic() < until:
        readable, writable, _ = select.select([stream], [stream], [], SILENCE_S)
        if readable:
            return int(stream.recv(100))
        if writable:
            with contextlib.suppress(BlockingIOError):
                stream.send(piece)
    raise TimeoutError("the stream stopped")


def accept(server: socket.socket, token: bytes) -> None:
    """Serve whoever connects."""
    while True:
        stream, _ = server.accept()
        threading.Thread(target=serve, args=(stream, token), daemon=True).start()


def main() -> None:
    """Measure what is asked for, until nobody asks any more."""
    token = secrets.token_hex(16)
    server = socket.create_server(("", 0))
    threading.Thread(target=accept, args=(server, token.encode()), daemon=True).start()
    print(f"{MARK}{json.dumps({'port': server.getsockname()[1], 'token': token})}", flush=True)
    for line in sys.stdin:
        print(f"{MARK}{json.dumps(measure(**json.loads(line)))}", flush=True)


if __name__ == "__main__":
    main()
