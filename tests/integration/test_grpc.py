"""The gRPC gateway as any gRPC client sees it: messages, statuses, trailing metadata, keys, health, reflection."""

from __future__ import annotations

import asyncio
import os
import stat
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from runtimed.gateway.grpc.pb import functions_pb2, invocations_pb2, logs_pb2, node_pb2
from tests.integration.conftest import KEY, Gateway
from tests.integration.performers import SubprocessInvoker
from tests.integration.stub import MEGABYTE, Stub, creation, nothing_staged, package, refused, until


def test_a_function_lives(stub: Stub) -> None:
    created = stub.create(
        description="d",
        memory_size=256,
        ephemeral_storage=functions_pb2.EphemeralStorage(size=1024),
        environment=functions_pb2.Environment(variables={"KEY": "värde"}),
        logging_config=functions_pb2.LoggingConfig(log_format=functions_pb2.LOG_FORMAT_JSON),
        upload_size=len(package()),
    )
    assert created.state == functions_pb2.STATE_PENDING
    assert created.state_reason == "The function is being created."
    assert created.function_arn == "arn:aws:lambda:us-east-1:000000000000:function:echo"
    assert (created.timeout, created.memory_size, created.ephemeral_storage.size) == (3, 256, 1024)
    assert dict(created.environment.variables) == {"KEY": "värde"}
    until(lambda: stub.get().state == functions_pb2.STATE_ACTIVE)
    found = stub.get(created.function_arn)
    assert not found.HasField("state_reason")

    answer = stub.invoke(payload='{"a": ["ü", 1]}'.encode(), log_type=invocations_pb2.LOG_TYPE_TAIL)
    assert (answer.status_code, answer.payload) == (200, b'{"a": ["\\u00fc", 1]}')
    assert not answer.HasField("function_error")
    assert answer.log_result.startswith(b"got")
    assert answer.request_id

    request = functions_pb2.UpdateFunctionConfigurationRequest(function_name="echo", timeout=9)
    changed = stub("Functions/UpdateFunctionConfiguration", request, functions_pb2.FunctionConfiguration)
    assert (changed.timeout, changed.memory_size, changed.description) == (9, 256, "d")
    assert changed.revision_id != found.revision_id

    request = functions_pb2.DeleteFunctionRequest(function_name="echo")
    stub("Functions/DeleteFunction", request, functions_pb2.DeleteFunctionResponse)
    code, sentence, metadata = refused(stub.get)
    assert code is grpc.StatusCode.NOT_FOUND
    assert "runtimectl functions" in sentence
    assert metadata["runtimed-error-code"] == "ResourceNotFoundException"


def test_code_is_replaced(echo: Stub) -> None:
    def parts() -> Iterator[functions_pb2.UpdateFunctionCodeUpload]:
        request = functions_pb2.UpdateFunctionCodeRequest(function_name="echo")
        yield functions_pb2.UpdateFunctionCodeUpload(request=request)
        yield functions_pb2.UpdateFunctionCodeUpload(chunk=package(b"def handler(event, context): return 'new'\n"))

    updated = echo.upload("UpdateFunctionCode", parts())
    assert updated.last_update_status == functions_pb2.LAST_UPDATE_STATUS_IN_PROGRESS
    until(lambda: echo.get().last_update_status == functions_pb2.LAST_UPDATE_STATUS_SUCCESSFUL)
    assert echo.invoke().payload == b'"new"'


def test_a_function_error_is_a_response(stub: Stub) -> None:
    stub.create(package(b"def handler(event, context):\n    raise KeyError('k')\n"))
    answer = stub.invoke()
    assert (answer.status_code, answer.function_error) == (200, "Unhandled")
    assert b'"errorType": "KeyError"' in answer.payload


def test_payloads_of_six_megabytes_pass_both_ways(echo: Stub) -> None:
    payload = b'"' + b"x" * (6 * MEGABYTE - 2) + b'"'
    assert echo.invoke(payload=payload).payload == payload


def test_an_upload_that_breaks_off_leaves_nothing(gateway: Gateway, stub: Stub) -> None:
    hold = threading.Event()

    def parts() -> Iterator[functions_pb2.CreateFunctionUpload]:
        yield from creation(b"x" * MEGABYTE, upload_size=3 * MEGABYTE)
        until(lambda: not nothing_staged(gateway.performers.deployer))
        hold.set()
        threading.Event().wait(30)

    thread = threading.Thread(
        target=lambda: refused(lambda: stub.upload("CreateFunction", parts(), timeout=3)), daemon=True
    )
    thread.start()
    assert hold.wait(30)
    until(lambda: nothing_staged(gateway.performers.deployer))
    thread.join()
    assert refused(stub.get)[0] is grpc.StatusCode.NOT_FOUND


def test_a_caller_who_leaves_ends_the_invocation(gateway: Gateway, echo: Stub) -> None:
    echo.create(package(b"import time\ndef handler(event, context): time.sleep(600)\n"), function_name="slow")
    invoker = gateway.performers.invoker
    assert isinstance(invoker, SubprocessInvoker)
    request = invocations_pb2.InvokeRequest(function_name="slow")
    call = echo.channel.unary_unary(
        "/runtimed.v1.Invocations/Invoke", request_serializer=lambda m: m.SerializeToString()
    ).future(request)
    until(invoker.started.is_set)
    call.cancel()
    before = time.monotonic()
    assert echo.invoke(payload=b"1").payload == b"1"
    assert time.monotonic() - before < 30


def test_pages_follow_each_other(stub: Stub) -> None:
    names = [f"f{number:03d}" for number in range(53)]
    for name in reversed(names):
        stub.create(function_name=name)
    seen: list[list[str]] = []
    marker = ""
    while True:
        request = functions_pb2.ListFunctionsRequest(marker=marker)
        page = stub("Functions/ListFunctions", request, functions_pb2.ListFunctionsResponse)
        seen.append([function.function_name for function in page.functions])
        if not page.HasField("next_marker"):
            break
        marker = page.next_marker
    assert [len(page) for page in seen] == [50, 3]
    assert [name for page in seen for name in page] == names
    request = functions_pb2.ListFunctionsRequest(max_items=2)
    page = stub("Functions/ListFunctions", request, functions_pb2.ListFunctionsResponse)
    assert [function.function_name for function in page.functions] == names[:2]


@pytest.mark.parametrize("members", [{"max_items": 0}, {"max_items": 10001}, {"marker": "no marker"}])
def test_bad_pages_are_refused(stub: Stub, members: dict[str, Any]) -> None:
    request = functions_pb2.ListFunctionsRequest(**members)
    status, _, _ = refused(lambda: stub("Functions/ListFunctions", request, functions_pb2.ListFunctionsResponse))
    assert status is grpc.StatusCode.INVALID_ARGUMENT


def test_logs_are_read_and_followed(gateway: Gateway, echo: Stub) -> None:
    first, second = (echo.invoke(payload=str(n).encode()).request_id for n in (1, 2))
    messages = [event.message for event in echo.logs(function_name="echo")]
    assert [message for message in messages if message.startswith("got")] == ["got 1", "got 2"]
    only = list(echo.logs(function_name="echo", request_id=second))
    assert {event.request_id for event in only} == {second} != {first}
    assert [event.kind for event in only] == [
        logs_pb2.LOG_KIND_START,
        logs_pb2.LOG_KIND_FUNCTION,
        logs_pb2.LOG_KIND_END,
    ]

    logs: Any = gateway.performers.logs
    stream = echo.logs(function_name="echo", follow=True)
    until(lambda: logs.readers == 1)
    third = echo.invoke(payload=b"3").request_id
    assert next(stream).request_id == third
    stream.cancel()
    until(lambda: logs.readers == 0)

    status, _, _ = refused(lambda: list(echo.logs(function_name="other")))
    assert status is grpc.StatusCode.NOT_FOUND
    status, sentence, _ = refused(lambda: list(echo.logs(function_name="echo", request_id="x")))
    assert (status, "RequestId" in sentence) == (grpc.StatusCode.INVALID_ARGUMENT, True)


def test_the_node_speaks_of_itself(stub: Stub) -> None:
    status = stub("Node/GetStatus", node_pb2.GetStatusRequest(), node_pb2.NodeStatus)
    assert status.started_at.ToJsonString() == "2026-01-31T12:00:00.123Z"
    assert (status.host.cpu_percent, status.environments.idle, status.invocations.total) == (12.5, 2, 3)
    diagnosis = stub("Node/Diagnose", node_pb2.DiagnoseRequest(), node_pb2.Diagnosis)
    assert diagnosis.checks[1].advice == "apt-get install e2fsprogs"
    assert diagnosis.checks[1].state == node_pb2.CHECK_STATE_MISSING
    runtimes = stub("Node/ListRuntimes", node_pb2.ListRuntimesRequest(), node_pb2.ListRuntimesResponse).runtimes
    assert [runtime.state for runtime in runtimes] == [node_pb2.RUNTIME_STATE_READY, node_pb2.RUNTIME_STATE_FAILED]


def test_a_defect_shows_nothing_of_the_inside(gateway: Gateway, stub: Stub, caplog: pytest.LogCaptureFixture) -> None:
    node: Any = gateway.performers.node

    async def fail() -> None:
        raise ZeroDivisionError("secret")

    node.status = fail
    status, sentence, metadata = refused(
        lambda: stub("Node/GetStatus", node_pb2.GetStatusRequest(), node_pb2.NodeStatus)
    )
    assert status is grpc.StatusCode.INTERNAL
    assert "secret" not in sentence
    assert metadata["runtimed-error-code"] == "ServiceException"
    assert "secret" in caplog.text


def test_the_socket_is_closed_to_others(gateway: Gateway) -> None:
    mode = os.stat(gateway.socket).st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o660


@pytest.mark.parametrize("key", [None, "", "Bearer", "Bearer wrong", f"bearer {KEY}", KEY, f"Bearer {KEY} "])
def test_tcp_needs_the_key(gateway: Gateway, key: str | None) -> None:
    stub = Stub(gateway.tcp, () if key is None else (("authorization", key),))
    status, sentence, metadata = refused(
        lambda: stub("Node/GetStatus", node_pb2.GetStatusRequest(), node_pb2.NodeStatus)
    )
    assert status is grpc.StatusCode.UNAUTHENTICATED
    assert metadata["runtimed-error-code"] == "UnrecognizedClientException"
    assert "control.key" in sentence
    assert refused(stub.create)[0] is grpc.StatusCode.UNAUTHENTICATED
    assert refused(lambda: list(stub.logs(function_name="echo")))[0] is grpc.StatusCode.UNAUTHENTICATED
    health = health_pb2_grpc.HealthStub(stub.channel)
    assert refused(lambda: health.Check(health_pb2.HealthCheckRequest()))[0] is grpc.StatusCode.UNAUTHENTICATED
    stub.channel.close()


def test_tcp_with_the_key_is_as_the_socket(gateway: Gateway) -> None:
    stub = Stub(gateway.tcp, (("authorization", f"Bearer {KEY}"),))
    assert stub.create().function_name == "echo"
    stub.channel.close()


def test_health(gateway: Gateway, stub: Stub) -> None:
    health = health_pb2_grpc.HealthStub(stub.channel)
    for name in ("", "runtimed.v1.Functions", "runtimed.v1.Invocations"):
        answer = health.Check(health_pb2.HealthCheckRequest(service=name))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    gateway.loop.run(lambda: gateway.server.set_serving(False))
    assert health.Check(health_pb2.HealthCheckRequest()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    assert refused(lambda: health.Check(health_pb2.HealthCheckRequest(service="x")))[0] is grpc.StatusCode.NOT_FOUND


def test_reflection_names_the_services(stub: Stub) -> None:
    reflection = reflection_pb2_grpc.ServerReflectionStub(stub.channel)
    request = reflection_pb2.ServerReflectionRequest(list_services="")
    (answer,) = reflection.ServerReflectionInfo(iter([request]))
    names = {service.name for service in answer.list_services_response.service}
    assert names >= {f"runtimed.v1.{name}" for name in ("Functions", "Invocations", "Logs", "Node")}
    request = reflection_pb2.ServerReflectionRequest(file_containing_symbol="runtimed.v1.Functions")
    (answer,) = reflection.ServerReflectionInfo(iter([request]))
    assert answer.file_descriptor_response.file_descriptor_proto


def test_stopping_lets_invocations_finish_and_ends_streams(gateway: Gateway, echo: Stub) -> None:
    source = b"""import os, time
def handler(event, context):
    while not os.path.exists(event):
        time.sleep(0.01)
    return 1
"""
    echo.create(package(source), function_name="waiter")
    go = gateway.socket.parent / "go"
    invoker, logs = gateway.performers.invoker, gateway.performers.logs
    assert isinstance(invoker, SubprocessInvoker)
    call = echo.channel.unary_unary(
        "/runtimed.v1.Invocations/Invoke",
        request_serializer=lambda message: message.SerializeToString(),
        response_deserializer=invocations_pb2.InvokeResponse.FromString,
    )
    running = call.future(invocations_pb2.InvokeRequest(function_name="waiter", payload=f'"{go}"'.encode()))
    until(invoker.started.is_set)
    stream = echo.logs(function_name="echo", follow=True)
    until(lambda: logs.readers == 1)  # type: ignore[attr-defined]
    stopping = asyncio.run_coroutine_threadsafe(gateway.server.stop(30), gateway.loop.loop)
    status, sentence, metadata = refused(lambda: next(stream))
    assert (status, metadata["runtimed-error-code"]) == (grpc.StatusCode.UNAVAILABLE, "ServiceUnavailableException")
    assert "stopping" in sentence
    assert not running.done()
    go.touch()
    assert running.result(30).payload == b"1"
    stopping.result(30)
    assert not gateway.socket.exists()
