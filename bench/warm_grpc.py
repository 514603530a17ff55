"""Warm invocations over gRPC on one HTTP/2 connection: over loopback TCP with a key, and over the unix socket.

Floor: a bare epoll server over the same loopback that answers every call with frames made beforehand. The client is the
benches' own in C: grpcio's Python takes several times as long as what is measured.
"""

from __future__ import annotations

import struct
import sys

from bench import calls, measure
from bench.measure import Report
from bench.warm_http import Protocol, compare
from runtimed.gateway.grpc.pb import invocations_pb2 as pb


def field(name: str, value: str) -> bytes:
    """One of a header block (HPACK: literal, not indexed, so that all calls are alike)."""
    return b"\0" + bytes([len(name)]) + name.encode() + bytes([len(value)]) + value.encode()


def frame(kind: int, flags: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags, 0, 0, 0, 0]) + payload


def frames(name: str, event: bytes, token: str) -> bytes:
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
    message = pb.InvokeRequest(function_name=name, payload=event).SerializeToString()
    return frame(1, 4, b"".join(field(*one) for one in fields.items())) + frame(
        0, 1, b"\0" + struct.pack(">I", len(message)) + message
    )


def run() -> Report:
    protocol = Protocol("grpc", frames, "grpc", "bare grpc", frames("hello", calls.EVENT, ""))
    return compare("warm_grpc", protocol)


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
