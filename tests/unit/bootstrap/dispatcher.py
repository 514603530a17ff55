"""Plays the dispatcher for one environment over a socketpair, without a sandbox around it."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import select
import socket
import subprocess
import time
import uuid
from types import TracebackType
from typing import Any, Self

from runtimed.model import wire

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent.parent
BOOTSTRAP = ROOT / "runtimed" / "bootstrap"
START = pathlib.Path(__file__).with_name("start.py")
ENVIRONMENT = 77
PATIENCE_S = 60.0
FIRST = 65536


class Answer:
    """What came back for one invocation: the RESULT with its chunks joined."""

    def __init__(self, header: wire.Header, result: wire.Result, body: bytes) -> None:
        self.header = header
        self.id = str(uuid.UUID(bytes=result.id))
        self.failed = bool(result.error)
        self.error_type = result.error_type
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class Environment:
    """One environment's process and our end of its channel."""

    def __init__(self, python: str, native: pathlib.Path, task: pathlib.Path, layers: pathlib.Path) -> None:
        self.task, self.layers = task, layers
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket = ours
        self.socket.settimeout(PATIENCE_S)
        self.log_end, log = os.pipe()
        os.set_blocking(self.log_end, False)
        self.logged = b""
        self.process = subprocess.Popen(
            [python, "-I", "-S", START, BOOTSTRAP, native, task, layers, str(theirs.fileno())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=[theirs.fileno()],
            env={"LANG": "C.UTF-8", "LEFT_OVER": "from the launcher"},
        )
        theirs.close()
        os.close(log)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()
        os.close(self.log_end)

    def send(self, message: wire.Message, flags: int = 0) -> None:
        self.socket.send(wire.encode(message, object=ENVIRONMENT, flags=flags))

    def receive(self) -> tuple[wire.Header, wire.Message]:
        """The environment's next message; EOFError when it is gone."""
        deadline = time.monotonic() + PATIENCE_S
        while not select.select([self.socket], [], [], 0.05)[0]:
            self.read_log()  # a full pipe would hold it up
            assert time.monotonic() < deadline, "the environment does not answer"
        packet = b""
        with contextlib.suppress(ConnectionResetError):
            packet = self.socket.recv(wire.MESSAGE_MAX)
        if not packet:
            raise EOFError
        header, message = wire.decode(packet)
        assert header.object == ENVIRONMENT
        return header, message

    def start(
        self, handler: str = "app.handler", init_type: int = 0, ahead: bool = False, **configuration: Any
    ) -> wire.Message:
        """INIT_DONE or INIT_ERROR."""
        settings = {
            "handler": handler,
            "function_name": "f",
            "function_version": "$LATEST",
            "memory_mb": 128,
            "log_group": "/aws/lambda/f",
            "region": "us-east-1",
            "log_format": "Text",
            "environment": {},
            "timeout_ms": 3000,
            **configuration,
        }
        settings = {name: value for name, value in settings.items() if value is not None}
        log_format = 1 if settings["log_format"] == "JSON" else 0
        self.send(
            wire.Start(
                init_type=init_type,
                log_format=log_format,
                log_stream="2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef",
                configuration=json.dumps(settings).encode(),
            ),
            wire.HeaderFlags.AHEAD if ahead else 0,
        )
        return self.receive()[1]

    def send_invoke(self, body: bytes, request_id: str | None = None, seconds: float = 3, **fields: Any) -> str:
        request_id = request_id or str(uuid.uuid4())
        self.send(
            wire.Invoke(
                id=uuid.UUID(request_id).bytes,
                deadline_ms=int((time.time() + seconds) * 1000),
                total=len(body),
                body=body[:FIRST],
                **{"arn": "arn:aws:lambda:us-east-1:000000000000:function:f", **fields},
            )
        )
        for at in range(FIRST, len(body), FIRST):
            self.send(wire.Chunk(data=body[at : at + FIRST]))
        return request_id

    def receive_answer(self) -> Answer:
        header, result = self.receive()
        assert isinstance(result, wire.Result)
        body = bytearray(result.body)
        while len(body) < result.total:
            chunk = self.receive()[1]
            assert isinstance(chunk, wire.Chunk)
            body += chunk.data
        return Answer(header, result, bytes(body))

    def invoke(self, event: Any = None, **fields: Any) -> Answer:
        """`event` is sent as JSON, bytes as they are."""
        request_id = self.send_invoke(event if isinstance(event, bytes) else json.dumps(event).encode(), **fields)
        answer = self.receive_answer()
        assert answer.id == request_id
        return answer

    def read_log(self) -> str:
        """Everything logged so far."""
        with contextlib.suppress(BlockingIOError):
            while data := os.read(self.log_end, 65536):
                self.logged += data
        return self.logged.decode()

    def leave(self) -> int:
        """Waits until the process has left; its status, negative for a signal."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            self.read_log()
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(0.02)
            assert time.monotonic() < deadline, "the environment does not leave"
