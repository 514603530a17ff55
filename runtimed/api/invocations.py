"""Invocations: hand an event to a function and give back what came of it."""

from __future__ import annotations

import base64
import binascii
from typing import Protocol

import msgspec

from runtimed.api.operation import operation
from runtimed.model import arn, errors, quotas
from runtimed.model.invocation import InvocationType, InvokeRequest, InvokeResponse
from runtimed.model.shape import Shape


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
        reference = arn.parse(request.function_name, self._identity, request.qualifier)
        if request.invocation_type is InvocationType.EVENT:
            raise errors.NotOffered(
                "InvocationType: this node has no asynchronous invocation yet. Use RequestResponse."
            )
        size = len(request.payload)
        if size > quotas.PAYLOAD_BYTES:
            raise errors.RequestTooLarge(
                f"Payload: {size} bytes are too many for the RequestResponse invocation type "
                f"(limit {quotas.PAYLOAD_BYTES} bytes). Pass a reference to the data instead."
            )
        payload = request.payload or b"{}"
        _check_json(payload)
        _check_client_context(request.client_context)
        return await self._invoker.invoke(
            msgspec.structs.replace(
                request, function_name=reference.name, qualifier=reference.qualifier, payload=payload
            )
        )


class _Anything(Shape, frozen=True):
    """A JSON object of whatever members."""


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
