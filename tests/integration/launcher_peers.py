"""The two ends a dispatcher (or a control plane) holds: a link to the launcher, a launched environment."""

from __future__ import annotations

import array
import contextlib
import json
import os
import select
import socket
import time
from collections.abc import Callable
from typing import TypeVar

from bench import node
from runtimed.model import wire

PATIENCE = 60.0 * node.PATIENCE

M = TypeVar("M", bound=wire.Message)


class Peer:
    """The test's end of a link: what arrived is kept until asked for."""

    def __init__(self, sock: socket.socket, pid: int, extra: list[int], stage: socket.socket) -> None:
        self.socket, self.pid, self.extra = sock, pid, extra
        self._stage = stage
        self._seq = 0
        self.inbox: list[tuple[wire.Header, wire.Message, list[int]]] = []

    def send(self, message: wire.Message, object_: int = 0, generation: int = 0, *, counted: bool = False) -> int:
        seq = 0
        if counted:
            self._seq += 1
            seq = self._seq
        self.socket.send(wire.encode(message, object=object_, generation=generation, seq=seq))
        return seq

    def receive(self, timeout: float = PATIENCE) -> tuple[wire.Header, wire.Message, list[int]]:
        if not select.select([self.socket], [], [], timeout)[0]:
            raise TimeoutError("nothing came")
        data, control, _flags, _address = self.socket.recvmsg(wire.MESSAGE_MAX, socket.CMSG_SPACE(8 * 4))
        if not data:
            raise EOFError("the launcher closed the link")
        fds = array.array("i")
        for level, kind, payload in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[: len(payload) - len(payload) % fds.itemsize])
        header, message = wire.decode(data)
        return header, message, list(fds)

    def expect(
        self, kind: type[M], object_: int | None = None, where: Callable[[M], bool] = lambda message: True
    ) -> tuple[wire.Header, M, list[int]]:
        """The next message of that kind (about that object); others are kept for later."""
        for i, (header, message, fds) in enumerate(self.inbox):
            if isinstance(message, kind) and object_ in (None, header.object) and where(message):
                del self.inbox[i]
                return header, message, fds
        deadline = time.monotonic() + PATIENCE
        while True:
            header, message, fds = self.receive(deadline - time.monotonic())
            if isinstance(message, kind) and object_ in (None, header.object) and where(message):
                return header, message, fds
            self.inbox.append((header, message, fds))

    def request(self, message: wire.Message, object_: int = 0, generation: int = 1) -> wire.Nack | None:
        """Sends, and waits until it was taken or refused."""
        seq = self.send(message, object_, generation, counted=True)
        while True:
            for i, (_header, answer, _fds) in enumerate(self.inbox):
                if isinstance(answer, wire.Nack) and answer.refused == seq:
                    del self.inbox[i]
                    return answer
                if isinstance(answer, wire.Ack) and answer.acknowledged >= seq:
                    return None
            self.inbox.append(self.receive())

    def leave(self, status: int = 0) -> None:
        """The program behind it ends."""
        self._stage.send(bytes([status]))
        self._stage.close()

    def let_go(self) -> None:
        """The link is closed, from both sides; the program lives on."""
        self.socket.shutdown(socket.SHUT_WR)
        with contextlib.suppress(EOFError):
            while True:
                self.receive()

    def close(self) -> None:
        self.socket.close()
        for fd in self.extra:
            os.close(fd)
        self._stage.close()


class Environment:
    """A launched environment, as the dispatcher sees it."""

    def __init__(self, id_: int, launched: wire.Launched, fds: list[int]) -> None:
        self.id, self.uid, self.restored = id_, launched.uid, bool(launched.restored)
        order = [flag for flag in wire.LaunchedFlags if launched.descriptors & flag]
        self.fds = dict(zip(order, fds, strict=True))
        self.channel = socket.socket(fileno=self.fds.pop(wire.LaunchedFlags.CHANNEL))
        self.channel.setblocking(True)
        self.channel.settimeout(PATIENCE)

    def start(self, handler: str = "app.handler") -> wire.Message:
        self.send_start(handler)
        return self.receive()

    def send_start(self, handler: str = "app.handler") -> None:
        configuration = {"handler": handler, "function_name": "f", "memory_mb": 128, "runtime": "python3"}
        start = wire.Start(
            init_type=0, log_format=0, log_stream="stream", configuration=json.dumps(configuration).encode()
        )
        self.channel.send(wire.encode(start, object=self.id))

    def receive(self) -> wire.Message:
        data = self.channel.recv(wire.MESSAGE_MAX)
        if not data:
            raise EOFError("the environment closed its channel")
        return wire.decode(data)[1]

    def send_invoke(self, payload: object) -> None:
        body = json.dumps(payload).encode()
        invoke = wire.Invoke(
            id=os.urandom(16),
            deadline_ms=int(time.time() * 1000) + 60_000,
            arn="arn:aws:lambda:us-east-1:000000000000:function:f",
            trace="",
            client_context=b"",
            cognito_identity=b"",
            tenant="",
            total=len(body),
            body=body,
        )
        self.channel.send(wire.encode(invoke, object=self.id))

    def invoke(self, payload: object) -> object:
        self.send_invoke(payload)
        result = self.receive()
        assert isinstance(result, wire.Result), result
        return json.loads(result.body)

    def log(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return os.read(self.fds[wire.LaunchedFlags.LOG], 65536)
        return b""

    def close(self) -> None:
        self.channel.close()
        for fd in self.fds.values():
            os.close(fd)
        self.fds = {}
