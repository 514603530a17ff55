"""Invocations: hand an event to a function and give back what came of it."""

from __future__ import annotations

import base64
import binascii
from collections.abc import AsyncIterator
from typing import Protocol

import msgspec
from msgspec import UNSET

from runtimed.api.operation import operation
from runtimed.model import arn, errors, quotas
from runtimed.model.invocation import (
    FunctionError,
    InvocationType,
    InvokeRequest,
    InvokeResponse,
    InvokeStreamComplete,
    InvokeStreamResponse,
    InvokeStreamStart,
)
from runtimed.model.shape import Shape

DRY_RUN = 204
UNHANDLED = "Unhandled"


class Invoker(Protocol):
    """The way to the dispatcher (invocation/)."""

    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        """Runs one invocation. `function_name` is a plain name, `qualifier` may be empty, the payload is JSON.

        A function's own failure is a response; raised are only API errors: ResourceNotFound, ResourceConflict
        (Pending), TooManyRequests, ServiceUnavailable, InvalidRuntime.
        """
        ...


class Invocations:
    """Operations on invocations."""

    def __init__(self, identity: arn.Identity, invoker: Invoker) -> None:
        self._identity = identity
        self._invoker = invoker

    @operation
    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        return await self._invoke(request)

    @operation
    async def invoke_stream(self, request: InvokeRequest) -> AsyncIterator[InvokeStreamResponse]:
        """The result as one part, once it is whole; as it comes, the dispatcher itself gives it, on the invoke port."""
        if request.invocation_type is InvocationType.EVENT:
            raise errors.InvalidParameterValue("InvocationType: an event has no response. Use Invoke.")
        response = await self._invoke(request)
        failed = response.function_error is not UNSET
        if response.status_code != DRY_RUN:
            yield InvokeStreamResponse(
                start=InvokeStreamStart(request_id=response.request_id, executed_version=response.executed_version)
            )
        if response.payload and not failed:
            yield InvokeStreamResponse(payload_chunk=response.payload)
        yield InvokeStreamResponse(
            complete=InvokeStreamComplete(
                status_code=response.status_code,
                error_code=_error_code(response.payload) if failed else UNSET,
                error_details=response.payload if failed else UNSET,
                log_result=response.log_result,
                duration_us=response.duration_us,
                init_duration_us=response.init_duration_us,
            )
        )

    async def _invoke(self, request: InvokeRequest) -> InvokeResponse:
        reference = arn.parse(request.function_name, self._identity, request.qualifier)
        is_event = request.invocation_type is InvocationType.EVENT
        if request.event_id and not is_event:
            raise errors.InvalidParameterValue("EventId: is for the invocation type Event.")
        size, most = len(request.payload), quotas.EVENT_BYTES if is_event else quotas.PAYLOAD_BYTES
        if size > most:
            raise errors.RequestTooLarge(
                f"Payload: {size} bytes are too many for the {request.invocation_type.value} invocation type "
                f"(limit {most} bytes). Pass a reference to the data instead."
            )
        payload = request.payload or b"{}"
        _check_json(payload)
        _check_client_context(request.client_context)
        return await self._invoker.invoke(
            msgspec.structs.replace(
                request, function_name=reference.name, qualifier=reference.qualifier, payload=payload
            )
        )


def _error_code(payload: bytes) -> str:
    try:
        kind = _error.decode(payload).error_type
    except msgspec.MsgspecError:
        kind = UNSET
    return UNHANDLED if kind is UNSET else kind or UNHANDLED


class _Anything(Shape, frozen=True):
    """A JSON object of whatever members."""


_error = msgspec.json.Decoder(FunctionError)
_json = msgspec.json.Decoder(msgspec.Raw)
_object = msgspec.json.Decoder(_Anything)


def _check_json(payload: bytes) -> None:
    try:
        _json.decode(payload)
        payload.decode()
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise errors.InvalidRequestContent(
            f"Payload: could not be read as JSON: {error}. Send one JSON value in UTF-8."
        ) from None
    except RecursionError:
        raise errors.InvalidRequestContent(
            "Payload: its arrays and objects are nested too deeply. Send a flatter JSON value."
        ) from None


def _check_client_context(context: str) -> None:
    if not context:
        return
    try:
        _object.decode(base64.b64decode(context, validate=True))
    except (binascii.Error, ValueError, RecursionError):
        raise errors.InvalidRequestContent("ClientContext: must be the base64 of a JSON object.") from None
