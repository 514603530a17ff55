"""A gRPC client made from the proto alone, without the SDK, and what tests do with it."""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

from runtimed.api.functions import Deployer
from runtimed.gateway.grpc.pb import functions_pb2, invocations_pb2, logs_pb2
from tests.integration.performers import RUNTIME, UnpackingDeployer

MEGABYTE = 1024 * 1024
ECHO = b"def handler(event, context):\n    print('got', event)\n    return event\n"


def package(source: bytes = ECHO, name: str = "app.py") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, source)
    return buffer.getvalue()


class Stub:
    """Calls by the names of the proto, without the SDK."""

    def __init__(self, target: str, metadata: tuple[tuple[str, str], ...] = ()) -> None:
        self.channel = grpc.insecure_channel(target, options=[("grpc.max_receive_message_length", -1)])
        self._metadata = metadata

    def __call__(self, method: str, request: Any, response: type[Any]) -> Any:
        call = self.channel.unary_unary(
            f"/runtimed.v1.{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=response.FromString,
        )
        return call(request, metadata=self._metadata, timeout=30)

    def upload(self, method: str, parts: Iterator[Any], timeout: float = 30) -> functions_pb2.FunctionConfiguration:
        call = self.channel.stream_unary(
            f"/runtimed.v1.Functions/{method}",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=functions_pb2.FunctionConfiguration.FromString,
        )
        return call(parts, metadata=self._metadata, timeout=timeout)

    def create(self, code: bytes | None = None, **members: Any) -> functions_pb2.FunctionConfiguration:
        return self.upload("CreateFunction", creation(code, **members))

    def logs(self, **members: Any) -> Any:
        call = self.channel.unary_stream(
            "/runtimed.v1.Logs/TailLogs",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=logs_pb2.LogEvent.FromString,
        )
        return call(logs_pb2.TailLogsRequest(**members), metadata=self._metadata)

    def invoke(self, **members: Any) -> invocations_pb2.InvokeResponse:
        request = invocations_pb2.InvokeRequest(**{"function_name": "echo", **members})
        response: invocations_pb2.InvokeResponse = self("Invocations/Invoke", request, invocations_pb2.InvokeResponse)
        return response

    def get(self, name: str = "echo") -> functions_pb2.FunctionConfiguration:
        request = functions_pb2.GetFunctionRequest(function_name=name)
        return self("Functions/GetFunction", request, functions_pb2.GetFunctionResponse).configuration


def creation(code: bytes | None = None, **members: Any) -> Iterator[functions_pb2.CreateFunctionUpload]:
    given = {"function_name": "echo", "runtime": RUNTIME, "handler": "app.handler", **members}
    yield functions_pb2.CreateFunctionUpload(request=functions_pb2.CreateFunctionRequest(**given))
    data = package() if code is None else code
    for start in range(0, len(data), MEGABYTE):
        yield functions_pb2.CreateFunctionUpload(chunk=data[start : start + MEGABYTE])


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def refused(call: Callable[[], Any]) -> tuple[grpc.StatusCode, str, dict[str, str]]:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error: Any = caught.value
    return error.code(), error.details(), dict(error.trailing_metadata())


def nothing_staged(deployer: Deployer) -> bool:
    assert isinstance(deployer, UnpackingDeployer)
    return not any(deployer.staging.iterdir())
