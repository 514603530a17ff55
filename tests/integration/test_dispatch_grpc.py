"""gRPC invokes in the dispatcher: grpcio as the client, against the real program; the test is its environments."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.gateway.grpc.status import REASON
from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, ROUTE, Control, Stage, await_true, counters, staged, target
from tests.integration.grpc_caller import Client, Peer, status
from tests.integration.http_caller import Caller

LIMIT = 6 << 20
TOKEN = "token-of-a-key"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Iterator[Control]:
    control = stage.ready()
    yield control
    page = counters(control)
    await_true(lambda: page.node()["calls_open"] == 0, "no call is open")
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    node = page.node()
    answers = node["answers_success"] + node["answers_function_error"] + node["answers_refused"]
    assert node["calls"] == answers + node["abandoned"]
    page.close()


@pytest.fixture
def client(stage: Stage, control: Control) -> Iterator[Client]:
    with Client(stage) as client:
        yield client


def test_invoke(stage: Stage, client: Client) -> None:
    call = client.start(
        b'{"a": 1}', trace_id="Root=1-5", client_context=base64.b64encode(b'{"b":2}').decode(), tenant_id="t"
    )
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert (event, invoke.trace, invoke.client_context, invoke.tenant) == (b'{"a": 1}', "Root=1-5", b'{"b":2}', "t")
    environment.result(invoke.id, b'{"answer": "\xc3\xa4"}')
    answer = call.result(PATIENCE)
    assert (answer.status_code, answer.payload) == (200, b'{"answer": "\xc3\xa4"}')
    assert answer.request_id.replace("-", "") == invoke.id.hex()
    assert answer.executed_version == "$LATEST"
    assert answer.duration_us > 0
    assert answer.init_duration_us > 0
    assert not answer.HasField("function_error")
    assert not answer.HasField("log_result")


def test_function_error_and_log_tail(stage: Stage, client: Client) -> None:
    call = client.start(b"", log_type="LOG_TYPE_TAIL")
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert event == b"{}"
    environment.print("hello\n")
    environment.result(invoke.id, b'{"errorType":"E"}', error="E")
    answer = call.result(PATIENCE)
    assert (answer.status_code, answer.function_error, answer.payload) == (200, "Unhandled", b'{"errorType":"E"}')
    assert b"hello\n" in answer.log_result


def test_many_at_once(stage: Stage, client: Client) -> None:
    calls = [client.start(b"%d" % number) for number in range(10)]
    environments = [stage.launch() for _ in calls]
    for environment in environments:
        environment.start()
    held = [(environment, *environment.invoke()) for environment in environments]
    for environment, invoke, event in reversed(held):
        environment.result(invoke.id, b"[%s]" % event)
    assert [call.result(PATIENCE).payload for call in calls] == [b"[%d]" % number for number in range(10)]


@pytest.mark.parametrize("size", [100_000, LIMIT - 1, LIMIT])
def test_large_payloads(stage: Stage, client: Client, size: int) -> None:
    call = client.start(b'"%s"' % (b"a" * (size - 2)))
    environment = stage.launch()
    environment.start()
    invoke, event = environment.invoke()
    assert len(event) == size
    environment.result(invoke.id, b'"%s"' % (b"b" * (size - 2)))
    assert call.result(PATIENCE).payload == b'"%s"' % (b"b" * (size - 2))


def test_refusals(stage: Stage, control: Control, client: Client) -> None:
    page = counters(control)
    invalid = ("INVALID_ARGUMENT", "InvalidParameterValueException")
    content = ("INVALID_ARGUMENT", "InvalidRequestContentException")
    large = ("INVALID_ARGUMENT", "RequestTooLargeException")
    for expected, fields in (
        (("NOT_FOUND", "ResourceNotFoundException"), {"function_name": "g"}),
        (("NOT_FOUND", "ResourceNotFoundException"), {"qualifier": "9"}),
        (invalid, {"function_name": "no name"}),
        (invalid, {"function_name": "f:1", "qualifier": "2"}),
        (invalid, {"function_name": "f" * 300}),
        (invalid, {"qualifier": "q" * 300}),
        (invalid, {"invocation_type": 9}),
        (invalid, {"log_type": 9}),
        (invalid, {"tenant_id": "t" * 257}),
        (invalid, {"trace_id": "t" * 513}),
        (("UNIMPLEMENTED", "NotImplementedException"), {"invocation_type": 2}),
        (content, {"payload": b"{"}),
        (content, {"client_context": "not base64"}),
        (content, {"client_context": base64.b64encode(b"[]").decode()}),
        (large, {"payload": b'"%s"' % (b"a" * (LIMIT - 1))}),
        (large, {"payload": b'"%s"' % (b"a" * (LIMIT + 100_000))}),
    ):
        assert client.refused(**fields) == expected, fields  # type: ignore[arg-type]
    assert page.node()["answers_refused"] == 16
    assert client.start(invocation_type=3).result(PATIENCE).status_code == 204
    page.close()


def test_a_throttle_says_why(stage: Stage, control: Control, client: Client) -> None:
    control.put(target(max_concurrency=0), 1, 2)
    control.acknowledged(control.put(ROUTE, 1, 2))
    call = client.start()
    assert status(call) == ("RESOURCE_EXHAUSTED", "TooManyRequestsException")
    assert dict(call.trailing_metadata())[REASON] == "ReservedFunctionConcurrentInvocationLimitExceeded"


def test_a_deadline_releases_the_caller(stage: Stage, control: Control, client: Client) -> None:
    page = counters(control)
    environment = stage.warm(stage.invoker())
    assert client.start(invocation_type=3).result(PATIENCE).status_code == 204  # its connection is there
    call = client.start(timeout=1)
    invoke, _ = environment.invoke()
    assert status(call) == ("DEADLINE_EXCEEDED", "")
    await_true(lambda: page.node()["cancelled"] == 1, "the caller is released")
    environment.result(invoke.id)
    again = client.start()
    environment.serve(b"2")
    assert again.result(PATIENCE).payload == b"2"
    page.close()


def test_a_deadline_that_only_the_server_keeps(stage: Stage, control: Control) -> None:
    """The peer says grpc-timeout and waits: it is told, the environment finishes, and its slot is there again."""
    control.put(target(max_concurrency=1), 1, 2)
    control.acknowledged(control.put(ROUTE, 1, 2))
    page = counters(control)
    environment = stage.warm(stage.invoker())
    with Peer(stage) as peer:
        for stream in (1, 5, 9):
            peer.call(stream, grpc_timeout="100m")
            invoke, _ = environment.invoke()
            assert peer.trailers(stream)["grpc-status"] == "4"
            assert page.node()["invocations_in_flight"] == 1, "it is not interrupted"
            peer.call(stream + 2, grpc_timeout="10S")
            assert peer.trailers(stream + 2)["grpc-status"] == "8", "and has its slot as long as it takes"
            environment.result(invoke.id)
            await_true(lambda: page.node()["invocations_in_flight"] == 0, "the environment is free")
        peer.call(13, grpc_timeout="10S")
        environment.serve(b"2")
        assert peer.trailers(13)["grpc-status"] == "0"
    page.close()


def test_a_deadline_while_waiting(stage: Stage, control: Control) -> None:
    """Who waits in the queue leaves it: the environment never hears of it."""
    control.put(target(max_environments=1), 1, 2)
    control.acknowledged(control.put(ROUTE, 1, 2))
    page = counters(control)
    environment = stage.warm(stage.invoker())
    with Peer(stage) as peer:
        peer.call(1, b"1")
        invoke, _ = environment.invoke()
        peer.call(3, b"3", grpc_timeout="50m")
        assert peer.trailers(3)["grpc-status"] == "4"
        assert page.node()["waiting"] == 0
        peer.call(5, b"5", grpc_timeout="0n")
        assert peer.trailers(5)["grpc-status"] == "4"
        environment.result(invoke.id)
        assert peer.trailers(1)["grpc-status"] == "0"
        peer.call(7, b"7")
        invoke, event = environment.invoke()
        assert event == b"7"
        environment.result(invoke.id)
        assert peer.trailers(7)["grpc-status"] == "0"
    page.close()


def test_cancel(stage: Stage, control: Control, client: Client) -> None:
    page = counters(control)
    environment = stage.warm(stage.invoker())
    call = client.start()
    invoke, _ = environment.invoke()
    call.cancel()
    await_true(lambda: page.node()["cancelled"] == 1, "the caller is released")
    assert page.node()["invocations_in_flight"] == 1
    environment.result(invoke.id)
    await_true(lambda: page.node()["invocations_in_flight"] == 0, "the environment is free")
    page.close()


def test_a_connection_that_goes_leaves_its_calls(stage: Stage, control: Control) -> None:
    page = counters(control)
    environment = stage.warm(stage.invoker())
    with Client(stage) as client:
        call = client.start()  # without a name it would be cancelled at once
        invoke, _ = environment.invoke()
    await_true(call.done, "grpcio gives it up")
    await_true(lambda: page.node()["calls_open"] == 0, "nobody waits")
    environment.result(invoke.id)
    page.close()


def test_both_protocols_on_one_socket(stage: Stage, client: Client) -> None:
    environment = stage.warm(stage.invoker())
    with Caller(stage) as caller:
        caller.post(b"1")
        environment.serve(b"2")
        assert caller.answer().body == b"2"
    call = client.start(b"3")
    environment.serve(b"4")
    assert call.result(PATIENCE).payload == b"4"


def test_keys_over_tcp(stage: Stage) -> None:
    control = stage.control()
    control.greet()
    key = wire.PutPrincipal(key_id="RTEXAMPLEKEY00000001", token=hashlib.sha256(TOKEN.encode()).digest(), signing=b"")
    control.synchronise((1, target()), (1, ROUTE), (5, key))
    with Client(stage, tcp=True) as client:
        assert client.refused() == ("UNAUTHENTICATED", "UnrecognizedClientException")
        assert client.refused(token="other") == ("UNAUTHENTICATED", "UnrecognizedClientException")
        assert client.start(token=TOKEN, invocation_type=3).result(PATIENCE).status_code == 204
