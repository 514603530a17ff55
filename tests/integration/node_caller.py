"""gRPC's official client for Node.js as a caller of the dispatcher: another one than grpcio, with an HTTP/2 of its own.
What it needs is installed below build/node by `./dev test`."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from types import TracebackType
from typing import Any

import pytest
from msgspec import Struct

from tests.integration.dispatch_stage import REPOSITORY, Stage

MODULES = REPOSITORY / "build" / "node" / "node_modules"
SCRIPT = REPOSITORY / "tests" / "clients" / "caller.js"
PROTO = REPOSITORY / "proto" / "runtimed" / "v1" / "invocations.proto"


class Told(Struct):
    """What became of a call."""

    status: str
    code: str = ""
    """Lambda's code of a refusal."""
    details: str = ""
    response: dict[str, Any] = {}

    @property
    def payload(self) -> bytes:
        return base64.b64decode(self.response["payload"])


class NodeCaller:
    """One client, in a process of its own."""

    def __init__(self, stage: Stage, *, tcp: bool = False, token: str = "") -> None:
        node = shutil.which("node")
        if node is None or not MODULES.is_dir():
            pytest.skip("Node.js and its gRPC client are installed by ./dev test")
        address = f"127.0.0.1:{stage.port}" if tcp else f"unix:{stage.http_path}"
        self._process = subprocess.Popen(
            [node, SCRIPT, PROTO, address, token],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_PATH": str(MODULES)},
        )
        self._numbers = 0
        self._told: dict[int, Told] = {}

    def __enter__(self) -> NodeCaller:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()

    def _say(self, **message: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(message) + "\n")
        self._process.stdin.flush()

    def start(self, payload: bytes = b"{}", *, milliseconds: int = 0, stream: bool = False, **fields: Any) -> int:
        """A call; its number. `milliseconds`: its deadline, 0 for none; `stream`: by InvokeStream; `fields` of
        InvokeRequest."""
        self._numbers += 1
        request = {"function_name": "f", "payload": base64.b64encode(payload).decode(), **fields}
        self._say(id=self._numbers, request=request, milliseconds=milliseconds, stream=stream)
        return self._numbers

    def cancel(self, number: int) -> None:
        self._say(id=number, cancel=True)

    def told(self, number: int) -> Told:
        """Waits for its end."""
        assert self._process.stdout is not None
        while number not in self._told:
            line = self._process.stdout.readline()
            assert line, f"the client left with {self._process.wait()}"
            message = json.loads(line)
            ended = message.pop("id")
            self._told[ended] = Told(**message)
        return self._told.pop(number)
