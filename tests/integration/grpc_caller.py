"""Callers of the dispatcher's gRPC: grpcio as everybody uses it, and a peer that sends the frames that a test says."""

from __future__ import annotations

import socket
import struct
from typing import Any

import grpc
import hpack
from hyperframe.frame import (
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.gateway.grpc.status import CODE
from tests.integration.dispatch_stage import PATIENCE, Stage

PATH = "/runtimed.v1.Invocations/Invoke"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
)
CALM = 11
"""ENHANCE_YOUR_CALM"""


class Client:
    """grpcio on a connection of its own."""

    def __init__(self, stage: Stage, *, tcp: bool = False) -> None:
        address = f"127.0.0.1:{stage.port}" if tcp else f"unix:{stage.http_path}"
        self.channel = grpc.insecure_channel(address, options=OPTIONS)
        self._invoke = self.channel.unary_unary(
            PATH,
            request_serializer=pb.InvokeRequest.SerializeToString,
            response_deserializer=pb.InvokeResponse.FromString,
        )

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.channel.close()

    def start(self, payload: bytes = b"{}", *, timeout: float = PATIENCE, token: str = "", **fields: Any) -> Any:
        """A call under way: a grpc.Future."""
        request = pb.InvokeRequest(**{"function_name": "f", "payload": payload, **fields})
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        return self._invoke.future(request, timeout=timeout, metadata=metadata)

    def refused(self, **fields: Any) -> tuple[str, str]:
        """Status and Lambda's code of a call that is refused."""
        return status(self.start(**fields))


def status(call: Any) -> tuple[str, str]:
    error = call.exception(PATIENCE)
    assert isinstance(error, grpc.RpcError), call.result()
    return call.code().name, dict(call.trailing_metadata() or ()).get(CODE, "")


class Peer:
    """One connection of HTTP/2, frame by frame."""

    def __init__(self, stage: Stage, *, tcp: bool = False, hello: bool = True) -> None:
        if tcp:
            self.sock = socket.create_connection(("127.0.0.1", stage.port))
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(str(stage.http_path))
        self.sock.settimeout(PATIENCE)
        self._buffer = b""
        self._encoder, self._decoder = hpack.Encoder(), hpack.Decoder()
        if hello:
            self.raw(PREFACE)
            self.send(SettingsFrame(0))

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def send(self, *frames: Frame) -> None:
        self.sock.sendall(b"".join(frame.serialize() for frame in frames))

    def headers(self, **changes: str) -> bytes:
        """A header block; `changes` by names with underscores, `path` and `method` for those with a colon."""
        fields = {
            ":method": changes.pop("method", "POST"),
            ":scheme": "http",
            ":path": changes.pop("path", PATH),
            ":authority": "h",
            "te": "trailers",
            "content-type": "application/grpc",
            **{name.replace("_", "-"): value for name, value in changes.items()},
        }
        block: bytes = self._encoder.encode([(name, value) for name, value in fields.items() if value])
        return block

    def opening(self, stream: int, flags: tuple[str, ...] = ("END_HEADERS",), **changes: str) -> HeadersFrame:
        return HeadersFrame(stream, self.headers(**changes), flags=list(flags))

    def message(self, stream: int, payload: bytes = b"{}", flags: tuple[str, ...] = ("END_STREAM",)) -> DataFrame:
        body = pb.InvokeRequest(function_name="f", payload=payload).SerializeToString()
        return DataFrame(stream, b"\0" + struct.pack(">I", len(body)) + body, flags=list(flags))

    def call(self, stream: int, payload: bytes = b"{}", **changes: str) -> None:
        self.send(self.opening(stream, **changes), self.message(stream, payload))

    def frame(self) -> Frame:
        """The next one; EOFError at the end."""
        while True:
            if len(self._buffer) >= 9:
                frame, size = Frame.parse_frame_header(memoryview(self._buffer[:9]))
                if len(self._buffer) >= 9 + size:
                    frame.parse_body(memoryview(self._buffer[9 : 9 + size]))
                    self._buffer = self._buffer[9 + size :]
                    return frame
            data = self.sock.recv(1 << 16)
            if not data:
                raise EOFError
            self._buffer += data

    def until(self, kind: type[Frame]) -> Any:
        """The next frame of a kind; what comes before it is passed over, its settings are acknowledged."""
        while True:
            frame = self.frame()
            if isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
                self.send(SettingsFrame(0, flags=["ACK"]))
            if isinstance(frame, HeadersFrame):
                frame.fields = dict(self._decoder.decode(frame.data))
            if isinstance(frame, kind):
                return frame

    def trailers(self, stream: int) -> dict[str, str]:
        """What ends the stream."""
        while True:
            frame = self.until(HeadersFrame)
            if frame.stream_id == stream and "END_STREAM" in frame.flags:
                fields: dict[str, str] = frame.fields
                return fields

    def goaway(self) -> int:
        """The error of the GOAWAY that comes."""
        error: int = self.until(GoAwayFrame).error_code
        return error

    def closed(self) -> bool:
        try:
            while True:
                self.frame()
        except (EOFError, ConnectionError):
            return True


__all__ = ["CALM", "PATH", "PREFACE", "Client", "Peer", "PingFrame", "RstStreamFrame", "WindowUpdateFrame", "status"]
