"""Responses in parts on a real node: from Python handlers and a custom runtime, to boto3, grpcio, the SDK and the
command line."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import botocore.config
import grpc
import pytest

from bench import calls
from bench.node import Node, free_address
from runtimed.client import AsyncClient, Client, FunctionFailed
from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from tests.conftest import need_root

SOURCE = """
import os, time

def handler(event, context):
    context.response_stream("text/plain")
    for step in event["steps"]:
        if step == "fail":
            raise ValueError("as asked")
        if step == "exit":
            os._exit(3)
        if step == "oom":
            kept = [bytearray(16 << 20) for _ in range(1000)]
        if step == "sleep":
            time.sleep(1)
        if isinstance(step, int):
            for _ in range(step):
                yield b"x" * 65536
        else:
            yield step
"""
PLAIN = "def handler(event, context):\n    return {'plain': event}"
HTTP = """
def handler(event, context):
    stream = context.response_stream(metadata={"statusCode": 201, "cookies": ["a=b"]})
    stream.write("made")
"""

# A runtime of the function's own, that fails in its trailers when asked to.
BOOTSTRAP = """#!PYTHON
import base64, http.client, json, os
api = http.client.HTTPConnection(os.environ["AWS_LAMBDA_RUNTIME_API"])
while True:
    api.request("GET", "/2018-06-01/runtime/invocation/next")
    answer = api.getresponse()
    event = json.loads(answer.read())
    path = "/2018-06-01/runtime/invocation/%s/response" % answer.headers["Lambda-Runtime-Aws-Request-Id"]
    api.putrequest("POST", path)
    for name, value in [
        ("Lambda-Runtime-Function-Response-Mode", "streaming"),
        ("Transfer-Encoding", "chunked"),
        ("Content-Type", "text/csv"),
        ("Trailer", "Lambda-Runtime-Function-Error-Type, Lambda-Runtime-Function-Error-Body"),
    ]:
        api.putheader(name, value)
    api.endheaders()
    for part in event["parts"]:
        api.send(b"%x\\r\\n%s\\r\\n" % (len(part), part.encode()))
    api.send(b"0\\r\\n")
    if event.get("fail"):
        body = base64.b64encode(json.dumps({"errorType": "Mine", "errorMessage": "as told"}).encode())
        api.send(b"Lambda-Runtime-Function-Error-Type: Function.Mine\\r\\n")
        api.send(b"Lambda-Runtime-Function-Error-Body: " + body + b"\\r\\n")
    api.send(b"\\r\\n")
    assert api.getresponse().read()
"""


class Served(Node):
    invoke = ""


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    need_root()
    Served.invoke = free_address()
    settings = {"RUNTIMED_INVOKE_LISTEN": Served.invoke, "RUNTIMED_LIMITS_STREAM_MB": "4"}
    with Served.start(settings) as node, Client(node.address) as client:
        assert isinstance(node, Served)
        for name, source in {"f": SOURCE, "plain": PLAIN, "http": HTTP}.items():
            calls.deploy(client, name, source, 256)
        yield node


@pytest.fixture
def client(served: Served) -> Iterator[Client]:
    with Client(served.address) as made:
        yield made


@pytest.fixture(scope="module")
def boto(served: Served) -> Iterator[Any]:
    with Client(served.address) as client:
        key = client.create_key("streams")
    made = boto3.client(
        "lambda", endpoint_url=f"http://{served.invoke}", region_name=key.region, aws_access_key_id=key.key.key_id,
        aws_secret_access_key=key.secret,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=120),
    )  # fmt: skip
    yield made
    made.close()


def event(*steps: object) -> bytes:
    return json.dumps({"steps": steps}).encode()


def parts_of(answer: Any) -> tuple[list[bytes], dict[str, Any]]:
    events = list(answer["EventStream"])
    assert [list(event) for event in events] == [["PayloadChunk"]] * (len(events) - 1) + [["InvokeComplete"]]
    return [event["PayloadChunk"]["Payload"] for event in events[:-1]], events[-1]["InvokeComplete"]


# ---- boto3 -------------------------------------------------------------------------------------------------------


def test_boto3(boto: Any) -> None:
    answer = boto.invoke_with_response_stream(FunctionName="f", Payload=event("one", "zwei \u00fc"), LogType="Tail")
    assert (answer["StatusCode"], answer["ExecutedVersion"]) == (200, "$LATEST")
    assert answer["ResponseStreamContentType"] == "text/plain"
    parts, complete = parts_of(answer)
    assert parts == [b"one", "zwei \u00fc".encode()]
    assert "ErrorCode" not in complete and complete["LogResult"]
    answer = boto.invoke_with_response_stream(FunctionName="plain", Payload=b'"x"')
    assert parts_of(answer) == ([b'{"plain": "x"}'], {})
    answer = boto.invoke_with_response_stream(FunctionName="http")
    assert answer["ResponseStreamContentType"] == "application/vnd.awslambda.http-integration-response"
    assert parts_of(answer)[0] == [b'{"statusCode": 201, "cookies": ["a=b"]}' + bytes(8) + b"made"]
    answer = boto.invoke_with_response_stream(FunctionName="f", InvocationType="DryRun")
    assert answer["StatusCode"] == 204
    answer["EventStream"].close()
    with pytest.raises(boto.exceptions.ResourceNotFoundException):
        boto.invoke_with_response_stream(FunctionName="nothing")


@pytest.mark.parametrize(
    ("step", "code"), [("fail", "ValueError"), ("exit", "Runtime.ExitError"), ("oom", "Runtime.OutOfMemory")]
)
def test_boto3_is_told_of_a_failure_in_the_middle(boto: Any, step: str, code: str) -> None:
    parts, complete = parts_of(boto.invoke_with_response_stream(FunctionName="f", Payload=event("half", step)))
    assert (parts, complete["ErrorCode"]) == ([b"half"], code)
    assert json.loads(complete["ErrorDetails"])["errorMessage"]


def test_boto3_gets_the_whole_of_a_generator(boto: Any) -> None:
    answer = boto.invoke(FunctionName="f", Payload=event("[1,", "2]"))
    assert json.load(answer["Payload"]) == [1, 2]
    answer = boto.invoke(FunctionName="f", Payload=event("half", "fail"))
    assert (answer["FunctionError"], json.load(answer["Payload"])["errorType"]) == ("Unhandled", "ValueError")


def test_too_much(boto: Any) -> None:
    """The node was told of 4 MB."""
    parts, complete = parts_of(boto.invoke_with_response_stream(FunctionName="f", Payload=event(80)))
    assert complete["ErrorCode"] == "Function.ResponseSizeTooLarge"
    assert sum(map(len, parts)) == 4 << 20


# ---- the SDK, grpcio, the command line ---------------------------------------------------------------------------


def test_sdk(client: Client) -> None:
    with client.invoke_stream("f", {"steps": ["one", "two"]}, log_tail=True) as stream:
        assert next(stream) == b"one"
        assert (stream.content_type, stream.executed_version, stream.complete) == ("text/plain", "$LATEST", None)
        assert (stream.read(), stream.error()) == (b"two", None)
    assert stream.complete is not None and stream.complete.duration_us > 0
    assert stream.request_id in stream.log_tail
    with client.invoke_stream("f", {"steps": ["half", "fail"]}) as stream:
        assert next(stream) == b"half"
        with pytest.raises(FunctionFailed, match="ValueError: as asked") as caught:
            next(stream)
    assert any("app.py" in line for line in caught.value.stack_trace)
    assert client.invoke_stream("plain", 1).read() == b'{"plain": 1}'
    with pytest.raises(Exception, match="Function not found"):
        client.invoke_stream("nothing").read()
    with client.invoke_stream("f", {"steps": ["one", "sleep"]}) as stream:
        assert next(stream) == b"one"  # and leaves


def test_sdk_through_the_control_plane(client: Client) -> None:
    """The long way, when the dispatcher's socket cannot be reached: as a whole."""
    client._direct.address = None
    client._dispatcher = None
    client._direct._known = False
    with client.invoke_stream("f", {"steps": ["a", "b"]}) as stream:
        assert list(stream) == [b"ab"]
    with pytest.raises(FunctionFailed, match="ValueError"):
        client.invoke_stream("f", {"steps": ["a", "fail"]}).read()


def test_async_sdk(served: Served) -> None:
    async def run() -> None:
        async with AsyncClient(served.address) as client:
            async with await client.invoke_stream("f", {"steps": ["one", "two"]}) as stream:
                assert [part async for part in stream] == [b"one", b"two"]
                assert stream.content_type == "text/plain"
            with pytest.raises(FunctionFailed, match="as asked"):
                await (await client.invoke_stream("f", {"steps": ["one", "fail"]})).read()
            async with await client.invoke_stream("f", {"steps": ["one", "sleep"]}) as stream:
                assert await anext(stream) == b"one"

    asyncio.run(run())


def test_grpcio(served: Served) -> None:
    with grpc.insecure_channel(f"unix:{served.directory}/run/invoke.sock") as channel:
        call = channel.unary_stream(
            "/runtimed.v1.Invocations/InvokeStream",
            request_serializer=pb.InvokeRequest.SerializeToString,
            response_deserializer=pb.InvokeStreamResponse.FromString,
        )
        messages = list(call(pb.InvokeRequest(function_name="f", payload=event("one", "exit")), timeout=60))
    assert [message.WhichOneof("event") for message in messages] == ["start", "payload_chunk", "complete"]
    assert messages[-1].complete.error_code == "Runtime.ExitError"


def test_command_line(served: Served) -> None:
    done = served.runtimectl("invoke", "f", "--stream", "--payload", event("one\n", "two").decode())
    assert (done.returncode, done.stdout, done.stderr) == (0, "one\ntwo", "")
    done = served.runtimectl("invoke", "f", "--stream", "--log-tail", "--payload", event("half", "fail").decode())
    assert (done.returncode, done.stdout) == (1, "half")
    assert "ValueError: as asked" in done.stderr and "REPORT RequestId" in done.stderr
    assert served.runtimectl("invoke", "f", "--stream", "--json").returncode == 2


# ---- a runtime of its own ----------------------------------------------------------------------------------------


def test_custom_runtime(client: Client, boto: Any, tmp_path: Path) -> None:
    (tmp_path / "bootstrap").write_text(BOOTSTRAP.replace("PYTHON", "/usr/bin/python3"))
    (tmp_path / "bootstrap").chmod(0o755)
    client.deploy("custom", tmp_path, runtime="provided.al2023", handler="x", timeout=30)
    with client.invoke_stream("custom", {"parts": ["a,b\n", "c,d\n"]}) as stream:
        assert (stream.read(), stream.content_type) == (b"a,b\nc,d\n", "text/csv")
    answer = boto.invoke_with_response_stream(FunctionName="custom", Payload=b'{"parts": ["half"], "fail": true}')
    parts, complete = parts_of(answer)
    assert parts == [b"half"]
    assert complete == {
        "ErrorCode": "Function.Mine",
        "ErrorDetails": '{"errorType": "Mine", "errorMessage": "as told"}',
    }
