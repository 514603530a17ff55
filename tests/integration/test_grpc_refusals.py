"""Bad input over gRPC: the right status, the right code, and a sentence that says what to do."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from runtimed.gateway.grpc.limits import RECEIVE_BYTES
from runtimed.gateway.grpc.pb import functions_pb2
from tests.integration.conftest import Gateway
from tests.integration.performers import RUNTIME
from tests.integration.stub import MEGABYTE, Stub, creation, nothing_staged, refused


@pytest.mark.parametrize(
    ("members", "code", "part"),
    [
        ({"payload": b"{"}, "InvalidRequestContentException", "JSON"),
        ({"payload": b'"\xff"'}, "InvalidRequestContentException", "UTF-8"),
        ({"payload": b"1 2"}, "InvalidRequestContentException", "JSON"),
        ({"payload": b"[" * 100_000 + b"]" * 100_000}, "InvalidRequestContentException", "nested too deeply"),
        ({"payload": b'"' + b"x" * (6 * MEGABYTE) + b'"'}, "RequestTooLargeException", "6291456"),
        ({"client_context": "%"}, "InvalidRequestContentException", "base64"),
        ({"client_context": "eyJhIjpb" + "W1tb" * 800}, "InvalidRequestContentException", "JSON object"),
        ({"client_context": "A" * 3584}, "InvalidParameterValueException", "3583"),
        ({"qualifier": "no spaces"}, "InvalidParameterValueException", "Qualifier"),
        ({"function_name": "no/such"}, "InvalidParameterValueException", "FunctionName"),
        ({"invocation_type": 77}, "InvalidParameterValueException", "InvocationType"),
    ],
)
def test_bad_invocations_are_refused_with_a_sentence(echo: Stub, members: Any, code: str, part: str) -> None:
    status, sentence, metadata = refused(lambda: echo.invoke(**members))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert metadata["runtimed-error-code"] == code
    assert part in sentence
    assert sentence.endswith(".")


def test_grpc_itself_refuses_what_is_far_too_large(echo: Stub) -> None:
    status, _, _ = refused(lambda: echo.invoke(payload=b"x" * (RECEIVE_BYTES + 1)))
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert echo.invoke(payload=b"1").payload == b"1"


@pytest.mark.parametrize(
    ("members", "part"),
    [
        ({"function_name": ""}, "FunctionName"),
        ({"function_name": "a b"}, "FunctionName"),
        ({"function_name": "x" * 65}, "64"),
        ({"function_name": "echo:1"}, "qualifier"),
        ({"runtime": "python2.7"}, RUNTIME),
        ({"runtime": "python3.9"}, "exits with status 1"),
        ({"runtime": ""}, "Runtime"),
        ({"handler": ""}, "Handler"),
        ({"handler": "a b"}, "Handler"),
        ({"timeout": 0}, "Timeout"),
        ({"timeout": 901}, "900"),
        ({"memory_size": 127}, "MemorySize"),
        ({"memory_size": -1}, "MemorySize"),
        ({"description": "x" * 257}, "256"),
        ({"ephemeral_storage": functions_pb2.EphemeralStorage(size=1)}, "EphemeralStorage.Size"),
        ({"environment": functions_pb2.Environment(variables={"1": "x"})}, "Environment.Variables"),
        ({"environment": functions_pb2.Environment(variables={"AWS_REGION": "x"})}, "AWS_REGION"),
        ({"environment": functions_pb2.Environment(variables={"KEY": "x" * 4096})}, "4096"),
        ({"environment": functions_pb2.Environment(variables={"KEY": "\0"})}, "NUL"),
        ({"logging_config": functions_pb2.LoggingConfig(application_log_level=1)}, "JSON"),
        ({"logging_config": functions_pb2.LoggingConfig(log_format=9)}, "Text, JSON"),
        ({"code": b""}, "zip"),
        ({"code": b"not a zip"}, "zip"),
        ({"upload_size": 5}, "5 bytes announced"),
        ({"upload_size": 10**6}, "ended after"),
        ({"upload_size": 10**12}, "250 MB"),
        ({"upload_sha256": "short"}, "base64"),
    ],
)
def test_bad_functions_are_refused_with_a_sentence(
    gateway: Gateway, stub: Stub, members: dict[str, Any], part: str
) -> None:
    given = dict(members)
    code = given.pop("code", None)
    status, sentence, metadata = refused(lambda: stub.create(code, **given))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert metadata["runtimed-error-code"] == "InvalidParameterValueException"
    assert part in sentence
    assert sentence.endswith(".")
    assert nothing_staged(gateway.performers.deployer)


def test_a_name_is_taken_once(echo: Stub) -> None:
    status, sentence, metadata = refused(echo.create)
    assert status is grpc.StatusCode.ALREADY_EXISTS
    assert metadata["runtimed-error-code"] == "ResourceConflictException"
    assert "already exists" in sentence


def test_a_stale_revision_is_refused(echo: Stub) -> None:
    request = functions_pb2.UpdateFunctionConfigurationRequest(function_name="echo", timeout=9, revision_id="old")
    call = "Functions/UpdateFunctionConfiguration"
    status, _, metadata = refused(lambda: echo(call, request, functions_pb2.FunctionConfiguration))
    assert status is grpc.StatusCode.ABORTED
    assert metadata["runtimed-error-code"] == "PreconditionFailedException"


def test_a_throttle_says_why_and_how_long(stub: Stub) -> None:
    stub.create(handler="full.handler")
    status, _, metadata = refused(stub.invoke)
    assert status is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert metadata["runtimed-error-reason"] == "ConcurrentInvocationLimitExceeded"
    assert metadata["retry-after"] == "1.5"
    assert metadata["runtimed-request-id"] == "r-1"


@pytest.mark.parametrize("method", ["Invocations/Invoke", "Functions/GetFunction", "Functions/CreateFunction"])
def test_what_is_no_message_is_refused(stub: Stub, method: str) -> None:
    make = stub.channel.stream_unary if method.endswith("CreateFunction") else stub.channel.unary_unary
    call = make(f"/runtimed.v1.{method}", request_serializer=None, response_deserializer=None)
    data = b"\x0a\xff\xff"
    status, sentence, _ = refused(lambda: call(iter([data]) if method.endswith("CreateFunction") else data, timeout=30))
    assert status is grpc.StatusCode.INVALID_ARGUMENT
    assert sentence.startswith("The request is not the message")


def test_uploads_in_the_wrong_order_are_refused(stub: Stub) -> None:
    chunk = functions_pb2.CreateFunctionUpload(chunk=b"x")
    request = next(creation())
    for parts in ([], [chunk], [functions_pb2.CreateFunctionUpload()], [request, request], [request, chunk, request]):
        status, sentence, _ = refused(lambda parts=parts: stub.upload("CreateFunction", iter(parts)))
        assert status is grpc.StatusCode.INVALID_ARGUMENT
        assert "`request`" in sentence
