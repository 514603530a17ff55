"""Runs one invocation for the API: through the dispatcher, and its answer in the API's terms."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Awaitable, Callable

from runtimed.dispatch.invocations import Invocations, Lost, Reply
from runtimed.model import errors, wire
from runtimed.model.function import FunctionConfiguration, State
from runtimed.model.invocation import InvocationType, InvokeRequest, InvokeResponse, LogType
from runtimed.model.shape import UNSET

GetFunction = Callable[[str, str], Awaitable[FunctionConfiguration | None]]
"""By a name and a qualifier, which may be empty."""


class Invoker:
    """Asks the registry only when the dispatcher does not know a function: a warm call meets no database."""

    def __init__(self, invocations: Invocations, function: GetFunction) -> None:
        self._invocations = invocations
        self._function = function

    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        flags = 0
        if request.log_type is LogType.TAIL:
            flags |= wire.CallFlags.LOG_TAIL
        if request.invocation_type is InvocationType.DRY_RUN:
            flags |= wire.CallFlags.DRY_RUN
        if request.invocation_type is InvocationType.EVENT:
            flags |= wire.CallFlags.EVENT
        try:
            reply = await self._invocations.call(
                request.function_name,
                request.qualifier,
                request.payload,
                flags=flags,
                trace=request.trace_id,
                client_context=base64.b64decode(request.client_context),
                tenant=request.tenant_id,
                event_id=request.event_id,
            )
        except Lost as error:
            raise errors.ServiceUnavailable(
                f"The dispatcher is being restarted ({error}). Whether the function ran is not known; try again."
            ) from None
        if reply.answer.outcome == wire.Outcome.REFUSED:
            raise await self._refusal(request, reply.answer)
        return _response(reply, request)

    async def _refusal(self, request: InvokeRequest, answer: wire.Answer) -> errors.ApiError:
        request_id = _request_id(answer)
        kind = errors.error_class(answer.code)
        if kind is errors.ResourceNotFound:
            return await self._unknown(request, answer, request_id)
        if kind is errors.TooManyRequests:
            return errors.TooManyRequests(answer.message, reason=answer.reason, request_id=request_id)
        if answer.status == 503:
            return errors.ServiceUnavailable(answer.message, request_id=request_id)
        return kind(answer.message or "The dispatcher refused the invocation.", request_id=request_id)

    async def _unknown(self, request: InvokeRequest, answer: wire.Answer, request_id: str) -> errors.ApiError:
        """The dispatcher has no route: the function does not exist, or cannot be invoked yet."""
        name = request.function_name
        function = await self._function(name, request.qualifier)
        if function is None and request.qualifier and await self._function(name, "") is not None:
            return errors.ResourceNotFound(
                f"Function not found: {name}:{request.qualifier}. `runtimectl versions {name}` and `runtimectl aliases "
                f"{name}` list what there is of it.",
                request_id=request_id,
            )
        if function is None:
            missing = f"{name}:{request.qualifier}" if request.qualifier else name
            return errors.ResourceNotFound(
                f"Function not found: {missing}. `runtimectl functions` lists those that exist.", request_id=request_id
            )
        if function.state is State.ACTIVE:
            return errors.ServiceUnavailable(
                "The node is starting and does not know the function yet. Try again.", request_id=request_id
            )
        why = function.state_reason if isinstance(function.state_reason, str) else ""
        return errors.ResourceConflict(
            f"The operation cannot be performed at this time. The function is currently in the following state: "
            f"{function.state.value}. {why}".strip(),
            request_id=request_id,
        )


def _response(reply: Reply, request: InvokeRequest) -> InvokeResponse:
    answer = reply.answer
    return InvokeResponse(
        status_code=answer.status,
        request_id=_request_id(answer),
        executed_version=answer.executed_version,
        function_error="Unhandled" if answer.outcome == wire.Outcome.FUNCTION_ERROR else UNSET,
        log_result=answer.log_tail if request.log_type is LogType.TAIL else UNSET,
        payload=reply.body,
        duration_us=answer.duration_us,
        init_duration_us=answer.init_us,
    )


def _request_id(answer: wire.Answer) -> str:
    return str(uuid.UUID(bytes=answer.request_id)) if any(answer.request_id) else ""
