"""A caller of the dispatcher's HTTP, byte by byte: what it sends is exactly what a test says."""

from __future__ import annotations

import json
import re
import socket

from tests.integration.dispatch_stage import PATIENCE, Stage


class Answer:
    """One answer of HTTP."""

    def __init__(self, head: str, body: bytes) -> None:
        first, *lines = head.split("\r\n")
        self.status = int(re.fullmatch(r"HTTP/1\.1 (\d{3}) [A-Z][A-Za-z ]+", first)[1])  # type: ignore[index]
        self.fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        self.body = body

    @property
    def error(self) -> tuple[int, str]:
        message = json.loads(self.body)
        assert message["Type"] == ("Service" if self.status >= 500 else "User")
        assert message.get("Message") or message.get("message")
        return self.status, self.fields["x-amzn-errortype"]


class Caller:
    """One connection."""

    def __init__(self, stage: Stage, *, tcp: bool = False) -> None:
        if tcp:
            self.sock = socket.create_connection(("127.0.0.1", stage.port))
        else:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.connect(str(stage.http_path))
        self.sock.settimeout(PATIENCE)
        self._buffer = b""

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: str | bytes) -> None:
        self.sock.sendall(data.encode() if isinstance(data, str) else data)

    def post(self, body: bytes = b"{}", *fields: str, name: str = "f", query: str = "") -> None:
        head = f"POST /2015-03-31/functions/{name}/invocations{query} HTTP/1.1\r\nHost: h\r\n"
        self.send(head + "".join(f"{field}\r\n" for field in fields) + f"Content-Length: {len(body)}\r\n\r\n")
        self.send(body)

    def _more(self) -> None:
        data = self.sock.recv(1 << 16)
        if not data:
            raise EOFError(self._buffer)
        self._buffer += data

    def answer(self) -> Answer:
        while b"\r\n\r\n" not in self._buffer:
            self._more()
        head, _, self._buffer = self._buffer.partition(b"\r\n\r\n")
        answer = Answer(head.decode(), b"")
        size = int(answer.fields.get("content-length", "0"))
        while len(self._buffer) < size:
            self._more()
        answer.body, self._buffer = self._buffer[:size], self._buffer[size:]
        return answer

    def closed(self) -> bool:
        """The other side says no more."""
        try:
            self._more()
        except (EOFError, ConnectionError):
            return True
        return False
