"""Warm invocations over gRPC on one HTTP/2 connection: over loopback TCP with a key, and over the unix socket.

Floor: a bare epoll server over the same loopback that answers every call with frames made beforehand. The client is the
benches' own in C: grpcio's Python takes several times as long as what is measured.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from collections.abc import Callable

from bench import calls, http, measure
from bench.measure import Report
from runtimed.gateway.grpc.pb import invocations_pb2 as pb

SECONDS = 1.5
PARTS = 5  # of a run, each placed anew: whether both ends share a core decides about a round trip
MEMORY_MB = 1769  # one core


def field(name: str, value: str) -> bytes:
    """One of a header block (HPACK: literal, not indexed, so that all calls are alike)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags, 0, 0, 0, 0]) + payload


def frames(name: str, token: str = "") -> bytes:
    """A call: HEADERS and DATA, whose stream the load numbers."""
    fields = {
        ":method": "POST",
        ":scheme": "http",
        ":path": "/runtimed.v1.Invocations/Invoke",
        ":authority": "localhost",
        "te": "trailers",
        "content-type": "application/grpc",
    }
    if token:
        fields["authorization"] = f"Bearer {token}"
    message = pb.InvokeRequest(function_name=name, payload=calls.EVENT).SerializeToString()
    return frame(1, 4, b"".join(field(*one) for one in fields.items())) + frame(
        0, 1, b"\0" + struct.pack(">I", len(message)) + message
    )


def measured(program: str, address: str, request: str) -> Callable[[], dict[str, float]]:
    def side() -> dict[str, float]:
        parts = [
            measure.latency(measure.load(program, "grpc", address, request, 1, SECONDS / PARTS)) for _ in range(PARTS)
        ]
        return {name: measure.median(parts, name) for name in measure.LATENCY}

    return side


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        served = stack.enter_context(http.served())
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        floor = stack.enter_context(measure.server(compiled.program("grpc")))
        with_key = compiled.file("tcp", frames("hello", served.token))
        without = compiled.file("unix", frames("hello"))
        results = measure.interleave(
            {
                "tcp": measured(program, served.port, with_key),
                "unix": measured(program, served.socket, without),
                "bare": measured(program, floor, compiled.file("floor-request", frames("hello"))),
            }
        )
        environments = served.client.status().environments
    return Report(
        bench="warm_grpc",
        figures=measure.figures("tcp", results["tcp"], measure.LATENCY)
        + measure.figures("unix", results["unix"], measure.LATENCY),
        floor=measure.figures("bare grpc", results["bare"], measure.LATENCY),
        ratio={
            "tcp p50 / bare grpc p50": measure.ratio(results, "tcp", "bare", "p50"),
            "unix p50 / bare grpc p50": measure.ratio(results, "unix", "bare", "p50"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note="client on the same cores; over TCP with a key; logging on; the summary is of TCP, of medians",
        summary={
            "p50_us": measure.median(results["tcp"], "p50"),
            "p99_us": measure.median(results["tcp"], "p99"),
            "floor_p50_us": measure.median(results["bare"], "p50"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
