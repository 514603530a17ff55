"""A blocking client's connection: channels, and how a call, a stream, an upload or a flow is run over them."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc

from runtimed.client import address as addresses
from runtimed.client import requests, rpc
from runtimed.client.build import build
from runtimed.client.direct import Direct
from runtimed.client.errors import ClientError, Unreachable
from runtimed.client.flows import Build, Call, Flow, Pause, Step
from runtimed.client.scaling import Scaling
from runtimed.model import errors, invocation
from runtimed.model.shape import Shape

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator
    from types import TracebackType

R = TypeVar("R", bound=Shape)
T = TypeVar("T")


class Connection:
    """A connection to a daemon; may be shared by threads."""

    def __init__(
        self,
        address: str | None = None,
        *,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Connects on first use. `address`: unix:/path or host:port; else RUNTIMED_ADDRESS, else the default socket.

        `timeout` bounds each call but invocations, which have their function's own.
        """
        self.address = addresses.find(address, key, key_file)
        self._timeout = timeout
        self._channel = grpc.insecure_channel(self.address.target, options=rpc.OPTIONS)
        self._metadata = rpc.metadata(self.address)
        self.scaling = Scaling(self._call)
        """Of provisioned concurrency."""
        self._direct = Direct(self.address)
        self._dispatcher: grpc.Channel | None = None
        if self._direct.address is not None:
            self._dispatcher = grpc.insecure_channel(self._direct.address.target, options=rpc.OPTIONS)

    def close(self) -> None:
        self._channel.close()
        if self._dispatcher is not None:
            self._dispatcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, flow: Flow[T]) -> T:
        """Does what a flow asks for until it returns."""
        try:
            step = next(flow)
            while True:
                try:
                    response = self._do(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Build):
            return build(step.path, step.runtime, step.progress)
        return self._call(step.rpc, step.request) if step.code is None else self._upload(step)

    def _invoke(self, request: invocation.InvokeRequest, timeout: float) -> invocation.InvokeResponse:
        if self._direct.due():
            self._direct.look()
        if self._direct.known and self._dispatcher is not None:
            try:
                return self._call(rpc.INVOKE, request, timeout, self._dispatcher)
            except (errors.ApiError, ClientError) as error:
                if not self._direct.refused(error):
                    raise self._direct.explain(error) from None
                try:
                    return self._call(rpc.INVOKE, request, timeout)
                except Unreachable:
                    raise error from None
        return self._call(rpc.INVOKE, request, timeout)

    def _invoke_stream(
        self, request: invocation.InvokeRequest, timeout: float
    ) -> Generator[invocation.InvokeStreamResponse, None, None]:
        if self._direct.due():
            self._direct.look()
        if self._direct.known and self._dispatcher is not None:
            begun = False
            try:
                for message in self._stream(rpc.INVOKE_STREAM, request, timeout, self._dispatcher):
                    begun = True
                    yield message
                return
            except (errors.ApiError, ClientError) as error:
                if begun or not self._direct.refused(error):
                    raise self._direct.explain(error) from None
        yield from self._stream(rpc.INVOKE_STREAM, request, timeout)

    def _call(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None = None, channel: grpc.Channel | None = None
    ) -> R:
        method = called.method
        message = rpc.encode(called, request)
        send = (channel or self._channel).unary_unary(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        pause = rpc.FIRST_PAUSE
        for left in reversed(range(rpc.ATTEMPTS)):
            try:
                return rpc.decode(called, send(message, metadata=self._metadata, timeout=timeout or self._timeout))
            except grpc.RpcError as error:
                translated = rpc.translate(error, self.address)
                if not left or not rpc.repeatable(called, error, translated, self.address):
                    raise translated from None
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _stream(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None, channel: grpc.Channel | None = None
    ) -> Iterator[R]:
        method = called.method
        stream = (channel or self._channel).unary_stream(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        responses = stream(rpc.encode(called, request), metadata=self._metadata, timeout=timeout)
        try:
            for response in responses:
                yield rpc.decode(called, response)
        except grpc.RpcError as error:
            raise rpc.translate(error, self.address) from None
        finally:
            responses.cancel()

    def _upload(self, call: Call) -> Any:
        method = call.rpc.method
        request = rpc.encode(call.rpc, call.request)
        send = self._channel.stream_unary(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        parts = rpc.upload(call.rpc, request, call.code or b"", call.progress)
        try:
            return rpc.decode(call.rpc, send(parts, metadata=self._metadata, timeout=requests.UPLOAD_SECONDS))
        except grpc.RpcError as error:
            raise rpc.translate(error, self.address) from None
