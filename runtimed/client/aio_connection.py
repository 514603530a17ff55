"""The connection of a client for asyncio: as `connection.Connection`."""

from __future__ import annotations

import asyncio
import random
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Self, TypeVar

import grpc.aio

from runtimed.client import address as addresses
from runtimed.client import requests, rpc
from runtimed.client.build import build
from runtimed.client.direct import Direct
from runtimed.client.errors import ClientError, Unreachable
from runtimed.client.flows import Build, Call, Flow, Pause, Step
from runtimed.client.scaling import AsyncScaling
from runtimed.model import errors, invocation
from runtimed.model.shape import Shape

if TYPE_CHECKING:
    import os
    from collections.abc import AsyncGenerator
    from types import TracebackType

R = TypeVar("R", bound=Shape)
T = TypeVar("T")


class AsyncConnection:
    """A connection to a daemon; belongs to the event loop that it is used in."""

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
        self._channel = grpc.aio.insecure_channel(self.address.target, options=rpc.OPTIONS)
        self._metadata = rpc.metadata(self.address)
        self.scaling = AsyncScaling(self._call)
        self._direct = Direct(self.address)
        self._looking = asyncio.Lock()
        self._dispatcher: grpc.aio.Channel | None = None
        if self._direct.address is not None:
            self._dispatcher = grpc.aio.insecure_channel(self._direct.address.target, options=rpc.OPTIONS)

    async def close(self) -> None:
        await self._channel.close(None)
        if self._dispatcher is not None:
            await self._dispatcher.close(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _run(self, flow: Flow[T]) -> T:
        """Does what a flow asks for until it returns."""
        try:
            step = next(flow)
            while True:
                try:
                    response = await self._do(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    async def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        if isinstance(step, Build):
            return await asyncio.to_thread(build, step.path, step.runtime, step.progress)
        return await self._call(step.rpc, step.request) if step.code is None else await self._upload(step)

    async def _look(self) -> None:
        if self._direct.due():
            async with self._looking:
                if self._direct.due():
                    await asyncio.to_thread(self._direct.look)

    async def _invoke(self, request: invocation.InvokeRequest, timeout: float) -> invocation.InvokeResponse:
        await self._look()
        if self._direct.known and self._dispatcher is not None:
            try:
                return await self._call(rpc.INVOKE, request, timeout, self._dispatcher)
            except (errors.ApiError, ClientError) as error:
                if not self._direct.refused(error):
                    raise await asyncio.to_thread(self._direct.explain, error) from None
                try:
                    return await self._call(rpc.INVOKE, request, timeout)
                except Unreachable:
                    raise error from None
        return await self._call(rpc.INVOKE, request, timeout)

    async def _invoke_stream(
        self, request: invocation.InvokeRequest, timeout: float
    ) -> AsyncGenerator[invocation.InvokeStreamResponse, None]:
        await self._look()
        if self._direct.known and self._dispatcher is not None:
            begun = False
            try:
                async with aclosing(self._stream(rpc.INVOKE_STREAM, request, timeout, self._dispatcher)) as messages:
                    async for message in messages:
                        begun = True
                        yield message
                return
            except (errors.ApiError, ClientError) as error:
                if begun or not self._direct.refused(error):
                    raise await asyncio.to_thread(self._direct.explain, error) from None
        async with aclosing(self._stream(rpc.INVOKE_STREAM, request, timeout)) as messages:
            async for message in messages:
                yield message

    async def _call(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None = None, channel: grpc.aio.Channel | None = None
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
                return rpc.decode(
                    called, await send(message, metadata=self._metadata, timeout=timeout or self._timeout)
                )
            except grpc.aio.AioRpcError as error:
                translated = rpc.translate(error, self.address)
                if not left or not rpc.repeatable(called, error, translated, self.address):
                    raise translated from None
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _stream(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None, channel: grpc.aio.Channel | None = None
    ) -> AsyncGenerator[R, None]:
        method = called.method
        stream = (channel or self._channel).unary_stream(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        responses = stream(rpc.encode(called, request), metadata=self._metadata, timeout=timeout)
        try:
            async for response in responses:
                yield rpc.decode(called, response)
        except grpc.aio.AioRpcError as error:
            raise rpc.translate(error, self.address) from None
        finally:
            responses.cancel()

    async def _upload(self, call: Call) -> Any:
        method = call.rpc.method
        request = rpc.encode(call.rpc, call.request)
        send = self._channel.stream_unary(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        parts = rpc.upload(call.rpc, request, call.code or b"", call.progress)
        try:
            return rpc.decode(call.rpc, await send(parts, metadata=self._metadata, timeout=requests.UPLOAD_SECONDS))
        except grpc.aio.AioRpcError as error:
            raise rpc.translate(error, self.address) from None
