"""Every operation of the API as a gRPC method. Nothing here knows a resource: it iterates over the table."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, NoReturn

import grpc
import msgspec
from google.protobuf.message import DecodeError

from runtimed.api.operation import Bound, Kind, Operation
from runtimed.gateway.grpc import status
from runtimed.gateway.grpc.convert import Codec
from runtimed.gateway.grpc.methods import METHODS, UPLOAD_CHUNK, UPLOAD_REQUEST, Method
from runtimed.model import errors
from runtimed.model.shape import explain

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]


class Servicer:
    """Performs operations for gRPC."""

    def __init__(self, api: Mapping[str, Bound], first_seconds: float) -> None:
        """`first_seconds`: how long an upload's first message may take.

        TypeError when the API's table and the proto do not say the same."""
        if api.keys() != METHODS.keys():
            raise TypeError(f"without counterpart in api or proto: {', '.join(sorted(api.keys() ^ METHODS.keys()))}")
        self._api = api
        self._first_seconds = first_seconds
        self._streams: set[asyncio.Task[Any]] = set()
        self._stopping = False

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """What a server registers: one handler per service."""
        services: dict[str, dict[str, grpc.RpcMethodHandler[Any, Any]]] = {}
        for name, bound in self._api.items():
            method = METHODS[name]
            services.setdefault(method.service, {})[name] = self._handler(method, bound)
        return [grpc.method_handlers_generic_handler(service, methods) for service, methods in services.items()]

    @staticmethod
    def services() -> Iterable[str]:
        return sorted({method.service for method in METHODS.values()})

    def end_streams(self) -> None:
        """The node stops: streams without an end are ended with UNAVAILABLE, new ones at once."""
        self._stopping = True
        for task in self._streams:
            task.cancel()

    def _handler(self, method: Method, bound: Bound) -> grpc.RpcMethodHandler[Any, Any]:
        operation = bound.operation
        if (operation.kind is Kind.UPLOAD, operation.kind is Kind.STREAM) != (
            method.client_streaming,
            method.server_streaming,
        ):
            raise TypeError(f"{operation.name}: the proto and the API disagree on what is streamed")
        kind: tuple[Callable[..., Any], Callable[..., Any]] = {
            Kind.CALL: (grpc.unary_unary_rpc_method_handler, self._call),
            Kind.UPLOAD: (grpc.stream_unary_rpc_method_handler, self._upload),
            Kind.STREAM: (grpc.unary_stream_rpc_method_handler, self._stream),
        }[operation.kind]
        make, serve = kind
        codecs = (Codec(operation.request, method.request), Codec(operation.response, method.response))
        handler: grpc.RpcMethodHandler[Any, Any] = make(
            serve(bound, *codecs),
            request_deserializer=_parser(method),
            response_serializer=method.output.SerializeToString,
        )
        return handler

    def _call(self, bound: Bound, request: Codec[Any], response: Codec[Any]) -> Callable[..., Any]:
        async def call(message: Any, context: Context) -> Any:
            try:
                return response.encode(await bound.call(_read(request, message)))
            except Exception as error:
                await _refuse(context, bound.operation, error)

        return call

    def _upload(self, bound: Bound, request: Codec[Any], response: Codec[Any]) -> Callable[..., Any]:
        async def upload(messages: AsyncIterator[Any], context: Context) -> Any:
            try:
                first = await self._first(messages)
                _check_parsed(first)
                if first is None or first.WhichOneof("part") != UPLOAD_REQUEST:
                    raise errors.InvalidParameterValue(
                        "An upload's first message holds `request`; all others hold `chunk`."
                    )
                async with aclosing(_chunks(messages)) as chunks:
                    return response.encode(await bound.call(_read(request, first.request), chunks))
            except Exception as error:
                await _refuse(context, bound.operation, error)

        return upload

    async def _first(self, messages: AsyncIterator[Any]) -> Any:
        try:
            async with asyncio.timeout(self._first_seconds):
                return await anext(aiter(messages), None)
        except TimeoutError:
            raise errors.RequestTimedOut("The upload was opened and nothing came. Send it again.") from None

    def _stream(self, bound: Bound, request: Codec[Any], response: Codec[Any]) -> Callable[..., Any]:
        async def stream(message: Any, context: Context) -> AsyncIterator[Any]:
            task = asyncio.current_task()
            assert task is not None
            self._streams.add(task)
            try:
                if self._stopping:
                    raise _stopping()
                async with aclosing(bound.call(_read(request, message))) as items:
                    async for item in items:
                        yield response.encode(item)
            except asyncio.CancelledError:
                if not self._stopping:
                    raise
                task.uncancel()
                await _refuse(context, bound.operation, _stopping())
            except Exception as error:
                await _refuse(context, bound.operation, error)
            finally:
                self._streams.discard(task)

        return stream


def _stopping() -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable("The node is stopping. Try again when it is back.")


def _parser(method: Method) -> Callable[[bytes], Any]:
    """gRPC would answer UNKNOWN and name our classes: what cannot be parsed is handed on and refused by us."""

    def parse(data: bytes) -> Any:
        try:
            return method.input.FromString(data)
        except DecodeError as error:
            return error

    return parse


def _check_parsed(message: Any) -> None:
    if isinstance(message, DecodeError):
        raise errors.InvalidParameterValue(
            "The request is not the message that this method takes. Use the proto of this version."
        )


def _read(codec: Codec[Any], message: Any) -> Any:
    _check_parsed(message)
    try:
        return codec.decode(message)
    except msgspec.ValidationError as error:
        raise errors.InvalidParameterValue(explain(codec.shape, error)) from None
    except (ValueError, OverflowError) as error:
        raise errors.InvalidParameterValue(f"The request holds a value out of range: {error}.") from None


async def _chunks(messages: AsyncIterator[Any]) -> AsyncGenerator[bytes, None]:
    async for message in messages:
        _check_parsed(message)
        if message.WhichOneof("part") != UPLOAD_CHUNK:
            raise errors.InvalidParameterValue(
                "Only an upload's first message holds `request`; all others hold `chunk`."
            )
        yield message.chunk


async def _refuse(context: Context, operation: Operation, error: Exception) -> NoReturn:
    """Answers with an error; what is not the API's own is logged and hidden from the caller."""
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if not isinstance(error, errors.ApiError):
        log.error("%s failed", operation.name, exc_info=error)
        error = errors.ServiceError(f"{operation.name} failed inside the node; its log says why.")
    code, sentence, metadata = status.encode(error)
    await context.abort(code, sentence, metadata)
    raise AssertionError("abort returned")
