"""gRPC invokes by clients that are not ours: Node.js' official one in detail, h2load and wrk in numbers."""

from __future__ import annotations

import asyncio
import random
import re
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import wire
from tests.integration.crowd import KEY, TOKEN, Ledger
from tests.integration.crowd_handlers import Handlers
from tests.integration.dispatch_stage import ROUTE, Control, Stage, await_true, counters, staged, target
from tests.integration.grpc_caller import PATH
from tests.integration.node_caller import NodeCaller

LIMIT = 6 << 20
MANY = 2000


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Iterator[Control]:
    """Afterwards nothing is held, and the counters agree."""
    control = stage.control()
    control.greet()
    control.synchronise((1, target(timeout_ms=60_000)), (1, ROUTE), (5, KEY))
    yield control
    page = counters(control)
    await_true(lambda: page.node()["calls_open"] == 0, "no call is open")
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    node = page.node()
    answers = node["answers_success"] + node["answers_function_error"] + node["answers_refused"]
    assert node["calls"] == answers + node["abandoned"]
    page.close()


@pytest.mark.parametrize("tcp", [False, True], ids=["unix", "tcp"])
def test_node(stage: Stage, control: Control, tcp: bool) -> None:
    page = counters(control)
    environment = stage.warm(stage.invoker())
    with NodeCaller(stage, tcp=tcp, token=TOKEN if tcp else "") as node:
        first = node.start(b'{"a": 1}', trace_id="Root=1-5", log_type="LOG_TYPE_TAIL")
        invoke, event = environment.invoke()
        assert (event, invoke.trace) == (b'{"a": 1}', "Root=1-5")
        environment.print("hello\n")
        environment.result(invoke.id, '{"ä": 2}'.encode())
        told = node.told(first)
        assert (told.status, told.payload) == ("OK", '{"ä": 2}'.encode())
        assert told.response["request_id"].replace("-", "") == invoke.id.hex()
        assert b"hello" in bytes(told.response["log_result"]["data"])
        largest = node.start(b'"%s"' % (b"a" * (LIMIT - 2)))
        invoke, event = environment.invoke()
        assert len(event) == LIMIT
        environment.result(invoke.id, b'"%s"' % (b"b" * (LIMIT - 2)))
        assert node.told(largest).payload == b'"%s"' % (b"b" * (LIMIT - 2))
        failing = node.start()
        invoke, _ = environment.invoke()
        environment.result(invoke.id, b'{"errorType":"E"}', error="E")
        assert node.told(failing).response["function_error"] == "Unhandled"
        late = node.start(milliseconds=300)
        invoke, _ = environment.invoke()
        assert node.told(late).status == "DEADLINE_EXCEEDED"
        await_true(lambda: page.node()["cancelled"] == 1, "its caller is released")
        environment.result(invoke.id)
        cancelled = node.start()
        invoke, _ = environment.invoke()
        node.cancel(cancelled)
        assert node.told(cancelled).status == "CANCELLED"
        await_true(lambda: page.node()["cancelled"] == 2, "and this one")
        environment.result(invoke.id)
        again = node.start(b"3")
        environment.serve(b"4")
        assert node.told(again).payload == b"4"
    page.close()


def test_node_is_refused(stage: Stage, control: Control) -> None:
    with NodeCaller(stage) as node:
        for fields, status, code in (
            ({"function_name": "g"}, "NOT_FOUND", "ResourceNotFoundException"),
            ({"payload": b"{"}, "INVALID_ARGUMENT", "InvalidRequestContentException"),
            ({"invocation_type": "INVOCATION_TYPE_EVENT"}, "UNIMPLEMENTED", "NotImplementedException"),
            ({"payload": b'"%s"' % (b"a" * LIMIT)}, "INVALID_ARGUMENT",
             "RequestTooLargeException"),
        ):  # fmt: skip
            told = node.told(node.start(**fields))  # type: ignore[arg-type]
            assert (told.status, told.code) == (status, code), told
        assert node.told(node.start(invocation_type="INVOCATION_TYPE_DRY_RUN")).response["status_code"] == 204
    for token in ("", "other"):
        with NodeCaller(stage, tcp=True, token=token) as node:
            assert node.told(node.start()).status == "UNAUTHENTICATED"


def test_node_streams(stage: Stage, control: Control) -> None:
    """A response in parts, one that its handler breaks off, one that the caller has enough of."""
    page = counters(control)
    environment = stage.warm(stage.invoker())
    with NodeCaller(stage) as node:
        for broken in (False, True):
            call = node.start(b"1", stream=True)
            invoke, event = environment.invoke()
            assert event == b"1"
            environment.send(wire.StreamHead(id=invoke.id, data=b"a" * 50_000))
            environment.send(wire.StreamChunk(data=b"b" * 50_000))
            failure = {"error": 1, "error_type": "Mine", "body": b'{"errorType":"Mine"}'} if broken else {}
            environment.send(wire.StreamEnd(**failure), flags=wire.HeaderFlags.READY)
            told = node.told(call)
            assert (told.status, told.payload) == ("OK", b"a" * 50_000 + b"b" * 50_000)
            assert told.response.get("error_code", "") == ("Mine" if broken else "")
        call = node.start(stream=True)
        invoke, _ = environment.invoke()
        environment.send(wire.StreamHead(id=invoke.id, data=b"a"))
        node.cancel(call)
        assert node.told(call).status == "CANCELLED"
        await_true(lambda: page.node()["cancelled"] == 1, "the caller is released")
        environment.send(wire.StreamEnd(), flags=wire.HeaderFlags.READY)
        late = node.start(stream=True, milliseconds=300)
        invoke, _ = environment.invoke()
        environment.send(wire.StreamHead(id=invoke.id, data=b"a"))
        assert node.told(late).status == "DEADLINE_EXCEEDED"
        await_true(lambda: page.node()["cancelled"] == 2, "and this one")
        environment.send(wire.StreamEnd(), flags=wire.HeaderFlags.READY)
        again = node.start(b"3")
        environment.serve(b"4")
        assert node.told(again).payload == b"4"
    page.close()


def test_node_many_at_once(stage: Stage, control: Control) -> None:
    with NodeCaller(stage) as node:
        calls = [node.start(b"%d" % number) for number in range(10)]
        environments = [stage.launch() for _ in calls]
        for environment in environments:
            environment.start()
        held = [(environment, *environment.invoke()) for environment in environments]
        for environment, invoke, event in reversed(held):
            environment.result(invoke.id, b"[%s]" % event)
        assert [node.told(call).payload for call in calls] == [b"[%d]" % number for number in range(10)]


# ---- load --------------------------------------------------------------------------------------------------------


async def said(program: str, *arguments: str) -> str:
    path = shutil.which(program)
    if path is None:
        pytest.skip(f"{program} is installed by ./dev test")
    process = await asyncio.create_subprocess_exec(
        path,
        *arguments,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


async def test_h2load(stage: Stage, control: Control, tmp_path: Path) -> None:
    """Several connections with several streams each; every call is a success, and an invocation."""
    body = pb.InvokeRequest(function_name="f", payload=b"{}").SerializeToString()
    message = tmp_path / "message"
    message.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
    handlers = Handlers(stage, Ledger(random.Random(1)))
    try:
        output = await said(
            "h2load", "-n", str(MANY), "-c", "8", "-m", "10", "-d", str(message), "-H", "te: trailers",
            "-H", "content-type: application/grpc", f"--base-uri=unix:{stage.http_path}", f"http://localhost{PATH}",
        )  # fmt: skip
    finally:
        handlers.close()
    assert f"{MANY} succeeded, 0 failed, 0 errored, 0 timeout" in output, output
    assert f"status codes: {MANY} 2xx" in output, output
    page = counters(control)
    assert page.node()["answers_success"] == page.node()["invocations"] == handlers.ledger.nameless == MANY
    page.close()


async def test_wrk(stage: Stage, control: Control, tmp_path: Path) -> None:
    """HTTP/1.1 over TCP with a key."""
    script = tmp_path / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nwrk.body = "{{}}"\nwrk.headers["Authorization"] = "Bearer {TOKEN}"\n'
        "function done(summary)\n"
        "    local wrong = summary.errors\n"
        '    print(string.format("requests %d wrong %d", summary.requests,\n'
        "        wrong.connect + wrong.read + wrong.write + wrong.status + wrong.timeout))\n"
        "end\n"
    )
    handlers = Handlers(stage, Ledger(random.Random(1)))
    url = f"http://127.0.0.1:{stage.port}/2015-03-31/functions/f/invocations"
    try:
        output = await said("wrk", "-t1", "-c8", "-d2s", "--timeout", "30s", "-s", str(script), url)
    finally:
        handlers.close()
    found = re.search(r"requests (\d+) wrong (\d+)", output)
    assert found is not None, output
    assert int(found[1]) > 0
    assert int(found[2]) == 0, output
    page = counters(control)
    assert int(found[1]) <= page.node()["answers_success"] <= page.node()["invocations"]
    page.close()
