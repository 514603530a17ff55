"""Payloads of 1 byte to 6 MB through HTTP and back: the function returns its event. One connection, loopback TCP.

Floor: a blocking HTTP server that sends the body back. The function also parses and writes JSON, which the floor does
not; its event is one string. One byte above 256 KiB, and all that is longer, goes through memory that the environment
shares with the dispatcher; 256 KiB go through its socket: the two stand beside each other.
"""

from __future__ import annotations

import contextlib
import socket
import sys
import time
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Figure, Report

SOCKET = 256 << 10
"""The longest that does not go through shared memory."""
SHARED = SOCKET + 1
SIZES = (1, 1 << 10, 64 << 10, SOCKET, SHARED, 1 << 20, 6 << 20)
SECONDS = 0.5  # for a size, in each run
FEWEST = 5
MEMORY_MB = 1769  # one core

ECHO = """
def handler(event, context):
    return event
"""


def event(size: int) -> bytes:
    """JSON of that many bytes."""
    return b"1" if size == 1 else b'"' + b"x" * (size - 2) + b'"'


def round_trips(port: str, request: bytes, size: int) -> list[float]:
    """Microseconds, one after the other; the first warms up. RuntimeError when an answer is not the event."""
    samples: list[float] = []
    answer = bytearray(size + 4096)
    with socket.create_connection(("127.0.0.1", int(port)), timeout=60) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        begun = time.perf_counter()
        while time.perf_counter() - begun < SECONDS or len(samples) <= FEWEST:
            start = time.perf_counter()
            sock.sendall(request)
            got = _receive(sock, answer)
            samples.append((time.perf_counter() - start) * 1e6)
            if got != size:
                raise RuntimeError(f"{got} bytes came back of {size}: {bytes(answer[:300])!r}")
    return samples[1:]


def _receive(sock: socket.socket, answer: bytearray) -> int:
    """The body's size, when all of it is there."""
    view, have, end, length = memoryview(answer), 0, -1, 0
    while end < 0 or have < end + length:
        count = sock.recv_into(view[have:])
        if not count:
            raise RuntimeError("the connection was closed")
        have += count
        if end < 0 and (found := answer.find(b"\r\n\r\n", 0, have)) >= 0:
            end = found + 4
            head = bytes(answer[:found]).lower()
            if not head.startswith(b"http/1.1 200"):
                raise RuntimeError(head.decode())
            length = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
    return length


def measured(port: str, token: str, size: int) -> Callable[[], dict[str, float]]:
    request = http.post("echo", event(size), token)
    return lambda: measure.latency(round_trips(port, request, size))


def named(size: int) -> str:
    if size == SHARED:
        return f"{named(SOCKET)} shared"
    for unit, bytes_in in (("MB", 1 << 20), ("KB", 1 << 10)):
        if size >= bytes_in:
            return f"{size // bytes_in} {unit}"
    return f"{size} B"


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "echo", ECHO, MEMORY_MB)
        mirror = stack.enter_context(measure.server(compiled.program("mirror")))
        sides = {}
        for size in SIZES:
            sides[named(size)] = measured(served.port, served.token, size)
            sides[f"mirror {named(size)}"] = measured(mirror, served.token, size)
        results = measure.interleave(sides)
        environments = served.client.status().environments
    figures: list[Figure] = []
    floor: list[Figure] = []
    ratio = {}
    for name in map(named, SIZES):
        figures += measure.figures(name, results[name], measure.LATENCY)
        floor += measure.figures(f"mirror {name}", results[f"mirror {name}"], measure.LATENCY)
        ratio[f"{name} p50 / mirror p50"] = measure.ratio(results, name, f"mirror {name}", "p50")
    ratio["256 KB shared p50 / by socket"] = measure.ratio(results, named(SHARED), named(SOCKET), "p50")
    return Report(
        bench="payload",
        figures=figures,
        floor=floor,
        ratio=ratio,
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="a Python client on the same cores; sizes are of the event and of the answer alike; logging on",
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
