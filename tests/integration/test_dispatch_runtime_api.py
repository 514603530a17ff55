"""The Runtime API on the real dispatcher: the test is the environment, and the runtime inside of it."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, Environment, Invoker, Stage, staged

NEXT = "/2018-06-01/runtime/invocation/next"
INIT_ERROR = "/2018-06-01/runtime/init/error"
LIMIT = (6 << 20) + 100
CONNECTIONS = 8


class Runtime:
    """A runtime behind the listener of one environment."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.environment: Environment
        self.connections: list[http.client.HTTPConnection] = []

    def launch(self) -> None:
        """Up to the execve."""
        self.environment = self.stage.launch(listener=self.listener)
        self.environment.expect(wire.Start)
        self.environment.sock.close()

    def raw(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=PATIENCE)

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection(*self.listener.getsockname(), timeout=PATIENCE)
        self.connections.append(connection)
        return connection

    def close(self) -> None:
        for connection in self.connections:
            connection.close()
        self.listener.close()


class Answer:
    def __init__(self, response: http.client.HTTPResponse) -> None:
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        self.id = self.headers.get("Lambda-Runtime-Aws-Request-Id", "")

    def refused(self, status: int, kind: str) -> bool:
        return self.status == status and json.loads(self.body)["errorType"] == kind


def ask(connection: http.client.HTTPConnection, method: str, path: str, body: Any = None, **headers: str) -> Answer:
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    return Answer(connection.getresponse())


def begin_next(connection: http.client.HTTPConnection) -> None:
    connection.request("GET", NEXT)


def report(connection: http.client.HTTPConnection, number: str, what: str, body: Any = b"{}", **headers: str) -> Answer:
    return ask(connection, "POST", f"/2018-06-01/runtime/invocation/{number}/{what}", body, **headers)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def runtime(stage: Stage) -> Iterator[Runtime]:
    runtime = Runtime(stage)
    try:
        yield runtime
    finally:
        runtime.close()


@pytest.fixture
def invoker(stage: Stage, runtime: Runtime) -> Invoker:
    stage.ready(runtime_api=1, timeout_ms=20000)
    return stage.invoker()


def invoked(runtime: Runtime, invoker: Invoker, payload: bytes = b'{"a":1}') -> tuple[http.client.HTTPConnection, str]:
    """A connection whose runtime has an event, and its id."""
    invoker.call(payload)
    runtime.launch()
    connection = runtime.connect()
    event = ask(connection, "GET", NEXT)
    assert (event.status, event.body) == (200, payload)
    return connection, event.id


def test_one_after_another(runtime: Runtime, invoker: Invoker) -> None:
    now = time.time()
    number = invoker.call(b'{"n":0}', trace="Root=1-2;Sampled=1", client_context=b'{"custom":\n{}}')
    runtime.launch()
    connection = runtime.connect()
    event = ask(connection, "GET", NEXT)
    assert event.status == 200
    assert event.body == b'{"n":0}'
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", event.id)
    assert event.headers["Lambda-Runtime-Trace-Id"] == "Root=1-2;Sampled=1"
    assert event.headers["Lambda-Runtime-Client-Context"] == '{"custom": {}}'
    assert event.headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(":function:f")
    assert now * 1000 < int(event.headers["Lambda-Runtime-Deadline-Ms"]) < (now + 120) * 1000
    assert report(connection, event.id, "response", b'{"r":0}').status == 202
    assert invoker.answer(number)[1] == b'{"r":0}'
    for n in range(1, 4):
        begin_next(connection)
        number = invoker.call(b"%d" % n)
        event = Answer(connection.getresponse())
        assert event.body == b"%d" % n
        assert "Lambda-Runtime-Trace-Id" not in event.headers
        assert report(connection, event.id, "response", b"[%d]" % n).status == 202
        assert invoker.answer(number)[1] == b"[%d]" % n


def test_ping_and_what_is_not_there(runtime: Runtime, invoker: Invoker) -> None:
    connection, _ = invoked(runtime, invoker)
    assert ask(connection, "GET", "/2018-06-01/ping").status == 200
    assert ask(connection, "GET", "/2018-06-01/runtime/invocation").status == 404
    assert ask(connection, "POST", "/2020-01-01/extension/register", b"{}").status == 404
    assert ask(connection, "POST", NEXT, b"").status == 405
    assert ask(connection, "GET", NEXT, b"body").status == 400


def test_handler_error(runtime: Runtime, invoker: Invoker) -> None:
    connection, number = invoked(runtime, invoker)
    body = b'{"errorMessage":"no","errorType":"Mine"}'
    assert report(connection, number, "error", body, Lambda_Runtime_Function_Error_Type="Mine").status == 202
    answer, told = invoker.answer()
    assert (answer.outcome, told) == (wire.Outcome.FUNCTION_ERROR, body)
    begin_next(connection)
    invoker.call()
    assert Answer(connection.getresponse()).status == 200


def test_states(runtime: Runtime, invoker: Invoker) -> None:
    """Two answers, an answer after an error, a wrong id, init/error too late, and next twice."""
    connection, number = invoked(runtime, invoker, b"[1]")
    assert report(connection, "0" * 36, "response").refused(400, "InvalidRequestID")
    assert report(connection, "x" * 500, "error").refused(400, "InvalidRequestID")
    assert ask(connection, "POST", INIT_ERROR, b"{}").refused(403, "InvalidStateTransition")
    again = ask(connection, "GET", NEXT)
    assert (again.status, again.id, again.body) == (200, number, b"[1]")
    assert report(connection, number, "error").status == 202
    second = report(connection, number, "response")
    assert second.refused(403, "InvalidStateTransition")
    assert json.loads(second.body)["errorMessage"].startswith(
        "State transition from ResponseSent to InvocationResponse failed for runtime."
    )
    assert report(connection, number, "error").refused(403, "InvalidStateTransition")
    begin_next(connection)
    assert ask(runtime.connect(), "GET", NEXT).refused(403, "InvalidStateTransition")
    assert report(runtime.connect(), number, "response").refused(400, "InvalidRequestID")
    assert len(invoker.answer()[1]) == 2
    invoker.call(b"[2]")
    assert Answer(connection.getresponse()).body == b"[2]"


def test_init_error(stage: Stage, runtime: Runtime, invoker: Invoker) -> None:
    invoker.call()
    runtime.launch()
    body = b'{"errorMessage":"none","errorType":"Runtime.NoSuchHandler"}'
    connection = runtime.connect()
    told = ask(connection, "POST", INIT_ERROR, body, Lambda_Runtime_Function_Error_Type="Runtime.NoSuchHandler")
    assert told.status == 202
    assert invoker.answer()[1] == body
    assert stage.ended(runtime.environment) == wire.EndReason.FAILURE


def test_init_error_before_the_execve(stage: Stage, runtime: Runtime, invoker: Invoker) -> None:
    invoker.call()
    environment = stage.launch(listener=runtime.listener)
    environment.expect(wire.Start)
    environment.send(wire.InitError(error_type="Runtime.InvalidEntrypoint", body=b'{"e":1}'))
    assert invoker.answer()[1] == b'{"e":1}'
    stage.ended(environment)


def test_the_channel_carries_nothing_else(stage: Stage, runtime: Runtime, invoker: Invoker) -> None:
    invoker.call()
    environment = stage.launch(listener=runtime.listener)
    environment.expect(wire.Start)
    environment.send(wire.InitDone())
    assert json.loads(invoker.answer()[1])["errorType"] == "Sandbox.Failure"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


@pytest.mark.parametrize("phase", ["init", "invoke", "answered"])
def test_exit(stage: Stage, runtime: Runtime, invoker: Invoker, phase: str) -> None:
    if phase == "init":
        invoker.call()
        runtime.launch()
    else:
        connection, number = invoked(runtime, invoker)
        if phase == "answered":
            # The news of its end comes first, and what it said is there as well.
            os.kill(stage.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, stage.pid, os.WSTOPPED)
    runtime.environment.exit(3 << 8)
    if phase == "answered":
        connection.request("POST", f"/2018-06-01/runtime/invocation/{number}/response", b"7")
        os.kill(stage.pid, signal.SIGCONT)
    answer = invoker.answer()[1]
    if phase == "answered":
        assert answer == b"7", "what it said before it left counts"
    else:
        assert json.loads(answer)["errorType"] == "Runtime.ExitError"
        assert b"exit status 3" in answer


def test_time_out(stage: Stage, runtime: Runtime) -> None:
    stage.ready(runtime_api=1, timeout_ms=1000)
    invoker = stage.invoker()
    connection, _ = invoked(runtime, invoker)
    assert json.loads(invoker.answer()[1])["errorType"] == "Sandbox.Timedout"
    assert stage.ended(runtime.environment) == wire.EndReason.TIMEOUT
    assert connection.sock is None or not connection.sock.recv(1), "its connections are closed"


@pytest.mark.parametrize("size", [0, 1, 70000, 1 << 20, LIMIT])
@pytest.mark.parametrize("chunked", [False, True])
def test_sizes(runtime: Runtime, invoker: Invoker, size: int, chunked: bool) -> None:
    event = b'"' + b"e" * min(size, 6 << 20) + b'"' if size < 6 << 20 else b"1"
    connection, number = invoked(runtime, invoker, event)
    body = b"r" * size
    parts = iter([body[at : at + 50000] for at in range(0, size, 50000)]) if chunked else body
    assert report(connection, number, "response", parts).status == 202
    assert invoker.answer()[1] == body
    begin_next(connection)


@pytest.mark.parametrize("chunked", [False, True])
def test_too_large(runtime: Runtime, invoker: Invoker, chunked: bool) -> None:
    connection, number = invoked(runtime, invoker)
    body = b"r" * (LIMIT + 1)
    refused = report(connection, number, "response", iter([body]) if chunked else body)
    assert refused.refused(413, "RequestEntityTooLarge")
    assert str(LIMIT) in json.loads(refused.body)["errorMessage"]
    assert json.loads(invoker.answer()[1])["errorType"] == "Function.ResponseSizeTooLarge"
    begin_next(connection)
    invoker.call(b"[3]")
    assert Answer(connection.getresponse()).body == b"[3]", "it may go on"


@pytest.mark.parametrize(
    "body", [b"Content-Length: 9\r\n\r\nfour", b"Transfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nx"]
)
def test_truncated(runtime: Runtime, invoker: Invoker, body: bytes) -> None:
    _, number = invoked(runtime, invoker)
    with runtime.raw() as sock:
        sock.sendall(f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\r\nHost: x\r\n".encode() + body)
        sock.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: sock.recv(65536), b""))
    assert b" 400 " in answer
    assert b"TruncatedHTTPRequest" in answer
    assert json.loads(invoker.answer()[1])["errorType"] == "Runtime.TruncatedResponse"


def test_a_response_mode_that_is_none(runtime: Runtime, invoker: Invoker) -> None:
    connection, number = invoked(runtime, invoker)
    refused = report(connection, number, "response", Lambda_Runtime_Function_Response_Mode="other")
    assert refused.refused(400, "InvalidFunctionResponseMode")
    assert json.loads(invoker.answer()[1])["errorType"] == "Runtime.InvalidResponseModeHeader"


def test_a_next_that_hung_up_is_forgotten(runtime: Runtime, invoker: Invoker) -> None:
    connection, number = invoked(runtime, invoker)
    report(connection, number, "response")
    invoker.answer()
    begin_next(connection)
    assert ask(runtime.connect(), "GET", NEXT).status == 403
    connection.close()
    ping = runtime.connect()
    while not (waiting := runtime.raw()) or _refused(waiting):
        assert ask(ping, "GET", "/2018-06-01/ping").status == 200
    invoker.call(b"[4]")
    with waiting:
        assert b"[4]" in waiting.recv(65536)


def _refused(sock: socket.socket) -> bool:
    """Asks for the next event: is it refused? Only an event says that it is not, so a ping behind tells."""
    sock.sendall(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if not select.select([sock], [], [], 0.05)[0]:
        return False
    sock.close()
    return True


def test_pipelined(runtime: Runtime, invoker: Invoker) -> None:
    """Requests behind a next wait for its event."""
    connection, number = invoked(runtime, invoker)
    report(connection, number, "response")
    invoker.answer()
    ping = b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n"
    with runtime.raw() as sock:
        sock.sendall(ping + f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode() + ping * 3)
        got = b""
        while got.count(b"pong") < 1:
            got += sock.recv(65536)
        assert got.count(b"HTTP/1.1 200") == 1
        invoker.call(b'"event"')
        while got.count(b"pong") < 4:
            more = sock.recv(65536)
            assert more
            got += more
        assert got.index(b'"event"') < got.index(b"pong", got.index(b"pong") + 1)


def test_expect_continue_and_http_1_0(runtime: Runtime, invoker: Invoker) -> None:
    _, number = invoked(runtime, invoker)
    with runtime.raw() as sock:
        sock.sendall(
            f"POST /2018-06-01/runtime/invocation/{number}/response HTTP/1.1\r\nHost: x\r\n"
            "Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n".encode()
        )
        assert sock.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        sock.sendall(b"{}")
        assert b" 202 " in b"".join(iter(lambda: sock.recv(65536), b""))
    assert invoker.answer()[1] == b"{}"
    with runtime.raw() as sock:
        sock.sendall(b"GET /2018-06-01/ping HTTP/1.0\r\n\r\n")
        assert b"pong" in b"".join(iter(lambda: sock.recv(65536), b""))


def test_slow_reader(runtime: Runtime, invoker: Invoker) -> None:
    """An event that is not read holds nothing up, and comes whole in the end."""
    payload = b'"' + b"p" * (5 << 20) + b'"'
    invoker.call(payload)
    runtime.launch()
    with runtime.raw() as sock:
        sock.sendall(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        other = runtime.connect()
        while True:
            event = ask(other, "GET", NEXT)
            if event.status == 200:
                break
        assert event.body == payload
        assert report(other, event.id, "response", b"8").status == 202
        assert invoker.answer()[1] == b"8"
        got = bytearray()
        while not got.endswith(b'p"'):
            more = sock.recv(1 << 20)
            assert more
            got += more
    assert bytes(got).endswith(payload)


GARBAGE = [
    b"\x00" * 100,
    b"GET\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\xff" * 500,
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 200 + b"\r\n",
    b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\n\r\n",
    b"a" * 100000,
    b"POST " + INIT_ERROR.encode() + b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    b"POST " + INIT_ERROR.encode() + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999\r\n\r\n",
]


@pytest.mark.parametrize("garbage", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage(runtime: Runtime, invoker: Invoker, garbage: bytes) -> None:
    connection, number = invoked(runtime, invoker)
    for _ in range(3 * CONNECTIONS):
        with runtime.raw() as sock:
            try:
                sock.sendall(garbage)
                sock.shutdown(socket.SHUT_WR)
                answer = b"".join(iter(lambda sock=sock: sock.recv(65536), b""))
            except ConnectionError:
                continue
            assert re.match(rb"HTTP/1.1 (400|403|404|413|414|431) |$", answer), answer[:100]
    assert report(connection, number, "response").status == 202
    assert invoker.answer()[1] == b"{}"


def test_thousands_of_connections(stage: Stage, runtime: Runtime, invoker: Invoker) -> None:
    """No more than a few are taken; others wait in the kernel until one of those leaves."""
    connection, number = invoked(runtime, invoker)
    descriptors = len(list(Path(f"/proc/{stage.pid}/fd").iterdir()))
    held = [runtime.raw() for _ in range(1000)]
    try:
        assert report(connection, number, "response").status == 202
        assert invoker.answer()[1] == b"{}"
        assert len(list(Path(f"/proc/{stage.pid}/fd").iterdir())) < descriptors + 2 * CONNECTIONS
        held[-1].sendall(b"GET /2018-06-01/ping HTTP/1.1\r\nHost: x\r\n\r\n")
        for sock in held[:-1]:
            sock.close()
        assert b"pong" in held[-1].recv(65536)
    finally:
        for sock in held:
            sock.close()
    assert stage.running()


def test_never_reading(stage: Stage, runtime: Runtime, invoker: Invoker) -> None:
    """Events asked for again and again and never read cost no more than the bounds, and go with the environment."""
    connection, number = invoked(runtime, invoker, b'"' + b"p" * (5 << 20) + b'"')
    held = []
    try:
        for _ in range(CONNECTIONS - 1):
            held.append(runtime.raw())
            held[-1].sendall(f"GET {NEXT} HTTP/1.1\r\nHost: x\r\n\r\n".encode() * 100)
        assert report(connection, number, "response", b"9").status == 202
        assert invoker.answer()[1] == b"9"
        runtime.environment.exit(signal.SIGKILL)
        for sock in held:
            while True:
                try:
                    if not sock.recv(1 << 20):
                        break
                except ConnectionError:
                    break
    finally:
        for sock in held:
            sock.close()
    assert stage.running()
