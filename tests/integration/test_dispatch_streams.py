"""Responses that come in parts, on the real dispatcher: the test is the environment and the caller, over Lambda's
InvokeWithResponseStream and gRPC's InvokeStream."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from botocore.eventstream import EventStreamBuffer

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import wire
from tests.integration.dispatch_stage import PART, Control, Invoker, Stage, await_true, counters, staged
from tests.integration.grpc_caller import OPTIONS
from tests.integration.stream_caller import (
    BUFFER,
    EVENTSTREAM,
    HttpStream,
    busy,
    chunk,
    end,
    fill,
    head,
    idle_again,
    invoke_stream,
)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    return stage.ready(timeout_ms=60000)


@pytest.fixture
def caller(stage: Stage, control: Control) -> Iterator[HttpStream]:
    with HttpStream(stage) as caller:
        yield caller


@pytest.fixture
def channel(stage: Stage, control: Control) -> Iterator[grpc.Channel]:
    # Windows that stay: those that grow with what comes take 16 MB before they hold anybody up.
    options = (*OPTIONS, ("grpc.http2.bdp_probe", 0))
    with grpc.insecure_channel(f"unix:{stage.http_path}", options=options) as channel:
        yield channel


# ---- over HTTP ---------------------------------------------------------------------------------------------------


def test_parts_come_as_they_are_written(stage: Stage, caller: HttpStream, control: Control) -> None:
    caller.begin("X-Amzn-Trace-Id: Root=1-5")
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"one", "text/event-stream")
    fields = caller.head()
    assert fields["content-type"] == "text/event-stream"
    assert fields["x-amz-executed-version"] == "$LATEST"
    assert fields["transfer-encoding"] == "chunked"
    assert fields["x-amzn-trace-id"] == "Root=1-5"
    assert caller.part() == b"one"
    for part in (b"two", b"\0" * 100, b"x" * PART):
        chunk(environment, part)
        assert caller.part() == part
    end(environment)
    assert caller.rest() == (b"", {})
    caller.begin()  # on the same connection
    environment.expect(wire.Invoke)
    assert counters(control).node()["streams"] == 1


def test_a_head_without_parts(stage: Stage, caller: HttpStream) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    head(environment, invoke.id)
    assert caller.head()["content-type"] == EVENTSTREAM
    end(environment)
    assert caller.rest() == (b"", {})
    idle_again(stage, environment)


@pytest.mark.parametrize("body", [b'{"a": 1}', b"x" * (6 << 20)])
def test_a_whole_result_is_one_part(stage: Stage, caller: HttpStream, body: bytes) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    environment.result(invoke.id, body)
    caller.head()
    assert caller.part() == body
    assert caller.rest() == (b"", {})
    idle_again(stage, environment)


def test_log_tail(stage: Stage, caller: HttpStream) -> None:
    caller.begin("X-Amz-Log-Type: Tail")
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"x")
    environment.print("said so\n")
    end(environment)
    caller.head()
    data, complete = caller.rest()
    assert data == b"x"
    tail = base64.b64decode(complete["LogResult"]).decode()
    assert "said so\n" in tail and "REPORT RequestId" in tail


def test_errors(stage: Stage, caller: HttpStream, control: Control) -> None:
    caller.begin()
    environment, invoke = busy(stage)
    environment.result(invoke.id, b'{"errorType":"KeyError"}', error="KeyError")
    caller.head()
    assert caller.rest() == (b"", {"ErrorCode": "KeyError", "ErrorDetails": '{"errorType":"KeyError"}'})
    caller.begin()
    invoke, _ = environment.invoke()
    head(environment, invoke.id, b"half")
    end(environment, "ValueError", b'{"errorMessage":"\xc3\xa4 \xff \\" \x01"}')
    caller.head()
    complete = {"ErrorCode": "ValueError", "ErrorDetails": '{"errorMessage":"\u00e4 \ufffd \\" \x01"}'}
    assert caller.rest() == (b"half", complete)
    idle_again(stage, environment)
    counted = counters(control).node()
    assert (counted["answers_function_error"], counted["answers_success"]) == (2, 1)


def test_refusals_are_plain(stage: Stage, caller: HttpStream) -> None:
    caller.begin(body=b"{")
    assert caller.answer().error == (400, "InvalidRequestContentException")
    caller.begin("X-Amz-Invocation-Type: Event")
    assert caller.answer().error == (400, "InvalidParameterValueException")
    caller.begin("X-Amz-Invocation-Type: DryRun")
    assert caller.answer().status == 204


def test_http_1_0(stage: Stage, caller: HttpStream) -> None:
    caller.begin(version="1.0")
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"one")
    end(environment)
    assert "transfer-encoding" not in caller.head()
    while not caller.closed():
        pass
    events = EventStreamBuffer()
    events.add_data(caller._buffer)
    assert [event.headers[":event-type"] for event in events] == ["PayloadChunk", "InvokeComplete"]


def test_a_caller_that_wants_it_whole(stage: Stage, control: Control) -> None:
    invoker = stage.invoker()
    number = invoker.call()
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"[1,", "text/plain")
    chunk(environment, b"2]")
    end(environment)
    answer, body = invoker.answer(number)
    assert (answer.outcome, body) == (wire.Outcome.SUCCESS, b"[1,2]")
    number = invoker.call()
    invoke, _ = environment.invoke()
    head(environment, invoke.id, b"[1,")
    end(environment, "E", b'{"errorType":"E"}')
    answer, body = invoker.answer(number)
    assert (answer.outcome, body) == (wire.Outcome.FUNCTION_ERROR, b'{"errorType":"E"}')
    number = invoker.call()
    invoke, _ = environment.invoke()
    head(environment, invoke.id)
    for _ in range(97):
        chunk(environment, b"x" * PART)
    end(environment)
    answer, body = invoker.answer(number)
    assert json.loads(body)["errorType"] == "Function.ResponseSizeTooLarge"
    idle_again(stage, environment)
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the memory comes back")


# ---- over gRPC ---------------------------------------------------------------------------------------------------


def test_grpc(stage: Stage, channel: grpc.Channel) -> None:
    call = invoke_stream(channel, log_type=pb.LOG_TYPE_TAIL)
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"one", "text/plain")
    start = next(call).start
    assert (start.executed_version, start.content_type) == ("$LATEST", "text/plain")
    assert start.request_id.replace("-", "") == invoke.id.hex()
    assert next(call).payload_chunk == b"one"
    for part in (b"two", b"x" * PART):
        chunk(environment, part)
        assert next(call).payload_chunk == part
    end(environment)
    complete = next(call).complete
    assert complete.status_code == 200 and not complete.HasField("error_code")
    assert complete.duration_us > 0 and b"REPORT" in complete.log_result
    assert list(call) == []
    assert call.code() == grpc.StatusCode.OK


def test_grpc_whole_result_and_errors(stage: Stage, channel: grpc.Channel) -> None:
    call = invoke_stream(channel)
    environment, invoke = busy(stage)
    environment.result(invoke.id, b"[1]")
    messages = list(call)
    assert [message.WhichOneof("event") for message in messages] == ["start", "payload_chunk", "complete"]
    assert messages[1].payload_chunk == b"[1]"
    call = invoke_stream(channel)
    invoke, _ = environment.invoke()
    head(environment, invoke.id, b"half")
    end(environment, "KeyError", b"{}")
    complete = list(call)[-1].complete
    assert (complete.error_code, complete.error_details) == ("KeyError", b"{}")
    call = invoke_stream(channel, invocation_type=pb.INVOCATION_TYPE_DRY_RUN)
    assert [message.complete.status_code for message in call] == [204]
    call = invoke_stream(channel, function_name="nobody")
    assert call.code() == grpc.StatusCode.NOT_FOUND


def test_grpc_slow_reader(stage: Stage, channel: grpc.Channel, control: Control) -> None:
    call = invoke_stream(channel)
    environment, invoke = busy(stage)
    head(environment, invoke.id)
    sent = fill(environment)
    assert BUFFER < sent * PART < 8 << 20  # the caller's window, its socket and the channel hold something too
    parts = [next(call).WhichOneof("event")]
    for number in range(sent):
        assert next(call).payload_chunk == number.to_bytes(8, "big") * (PART // 8)
    end(environment)
    parts += [message.WhichOneof("event") for message in call]
    assert parts == ["start", "complete"]
    idle_again(stage, environment)
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the memory comes back")


def test_grpc_cancelled(stage: Stage, channel: grpc.Channel, control: Control) -> None:
    call = invoke_stream(channel)
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"one")
    next(call)
    call.cancel()
    await_true(lambda: counters(control).node()["cancelled"] == 1, "the call is released")
    chunk(environment, b"two")
    end(environment)
    idle_again(stage, environment)


def test_grpc_deadline(stage: Stage, channel: grpc.Channel, control: Control) -> None:
    environment = stage.warm(stage.invoker())
    call = invoke_stream(channel, timeout=1.5)
    invoke, _ = environment.invoke()
    head(environment, invoke.id, b"one")
    with pytest.raises(grpc.RpcError):
        list(call)
    assert call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    end(environment)
    idle_again(stage, environment)


def test_grpc_environment_exits(stage: Stage, channel: grpc.Channel) -> None:
    call = invoke_stream(channel)
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"one")
    environment.exit(1 << 8)
    complete = list(call)[-1].complete
    assert complete.error_code == "Runtime.ExitError"


def test_the_flag_of_an_invoker_is_ignored(stage: Stage, control: Control) -> None:
    invoker: Invoker = stage.invoker()
    number = invoker.call(flags=wire.CallFlags.STREAM)
    environment, invoke = busy(stage)
    head(environment, invoke.id, b"1")
    end(environment)
    assert invoker.answer(number)[1] == b"1"
