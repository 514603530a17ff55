"""Queues of asynchronous invocation: look at them, change what is in them, say how events are retried."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from msgspec.structs import replace

from runtimed.api import lambda_members
from runtimed.api.operation import Route, operation
from runtimed.model import arn, errors
from runtimed.model.queue import (
    CancelEventsRequest,
    ChangedEvents,
    DeleteFunctionEventInvokeConfigRequest,
    DeleteFunctionEventInvokeConfigResponse,
    EventSettings,
    FunctionEventInvokeConfig,
    GetFunctionEventInvokeConfigRequest,
    ListEventsRequest,
    ListEventsResponse,
    ListFunctionEventInvokeConfigsRequest,
    ListFunctionEventInvokeConfigsResponse,
    ListQueuesRequest,
    ListQueuesResponse,
    PauseQueueRequest,
    PauseQueueResponse,
    PutFunctionEventInvokeConfigRequest,
    RedriveEventsRequest,
    ResumeQueueRequest,
    ResumeQueueResponse,
    UpdateFunctionEventInvokeConfigRequest,
)
from runtimed.model.shape import UNSET

if TYPE_CHECKING:
    from runtimed.model.queue import QueueStatus

_CONFIG = "/2019-09-25/functions/{FunctionName}/event-invoke-config"
_LATEST = ("", "$LATEST")


class EventQueues(Protocol):
    """The dispatcher's queues, and the rules that it follows (invocation/events.py). Names are plain, or empty for all.

    Raises ResourceNotFound for a function that there is not, ServiceUnavailable while there is no dispatcher.
    """

    async def queues(self, name: str) -> list[QueueStatus]: ...

    async def events(self, request: ListEventsRequest) -> ListEventsResponse: ...

    async def cancel(self, request: CancelEventsRequest) -> ChangedEvents: ...

    async def redrive(self, request: RedriveEventsRequest) -> ChangedEvents: ...

    async def pause(self, name: str, paused: bool) -> None: ...

    async def configure(self, name: str, settings: EventSettings, *, merge: bool) -> FunctionEventInvokeConfig: ...

    async def configuration(self, name: str) -> FunctionEventInvokeConfig | None: ...

    async def unconfigure(self, name: str) -> None: ...


class Queues:
    """Operations on queues."""

    def __init__(self, identity: arn.Identity, queues: EventQueues) -> None:
        self._identity = identity
        self._queues = queues

    @operation(safe=True)
    async def list_queues(self, request: ListQueuesRequest) -> ListQueuesResponse:
        return ListQueuesResponse(queues=await self._queues.queues(self._any(request.function_name)))

    @operation(safe=True)
    async def list_events(self, request: ListEventsRequest) -> ListEventsResponse:
        return await self._queues.events(replace(request, function_name=self._any(request.function_name)))

    @operation
    async def cancel_events(self, request: CancelEventsRequest) -> ChangedEvents:
        return await self._queues.cancel(replace(request, function_name=self._any(request.function_name)))

    @operation
    async def redrive_events(self, request: RedriveEventsRequest) -> ChangedEvents:
        return await self._queues.redrive(replace(request, function_name=self._any(request.function_name)))

    @operation
    async def pause_queue(self, request: PauseQueueRequest) -> PauseQueueResponse:
        await self._queues.pause(self._name(request.function_name), True)
        return PauseQueueResponse()

    @operation
    async def resume_queue(self, request: ResumeQueueRequest) -> ResumeQueueResponse:
        await self._queues.pause(self._name(request.function_name), False)
        return ResumeQueueResponse()

    @operation(route=Route("PUT", _CONFIG, 200, lambda_members.event_invoke_config))
    async def put_function_event_invoke_config(
        self, request: PutFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        name = self._name(request.function_name, request.qualifier)
        return await self._queues.configure(name, _settings(request), merge=False)

    @operation(route=Route("POST", _CONFIG, 200, lambda_members.event_invoke_config))
    async def update_function_event_invoke_config(
        self, request: UpdateFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        name = self._name(request.function_name, request.qualifier)
        if await self._queues.configuration(name) is None:
            raise _none(name)
        return await self._queues.configure(name, _settings(request), merge=True)

    @operation(safe=True, route=Route("GET", _CONFIG))
    async def get_function_event_invoke_config(
        self, request: GetFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        name = self._name(request.function_name, request.qualifier)
        found = await self._queues.configuration(name)
        if found is None:
            raise _none(name)
        return found

    @operation(route=Route("DELETE", _CONFIG, 204))
    async def delete_function_event_invoke_config(
        self, request: DeleteFunctionEventInvokeConfigRequest
    ) -> DeleteFunctionEventInvokeConfigResponse:
        name = self._name(request.function_name, request.qualifier)
        if await self._queues.configuration(name) is None:
            raise _none(name)
        await self._queues.unconfigure(name)
        return DeleteFunctionEventInvokeConfigResponse()

    @operation(safe=True, route=Route("GET", f"{_CONFIG}/list"))
    async def list_function_event_invoke_configs(
        self, request: ListFunctionEventInvokeConfigsRequest
    ) -> ListFunctionEventInvokeConfigsResponse:
        found = await self._queues.configuration(self._name(request.function_name))
        return ListFunctionEventInvokeConfigsResponse(function_event_invoke_configs=[] if found is None else [found])

    def _any(self, reference: str) -> str:
        return self._name(reference) if reference else ""

    def _name(self, reference: str, qualifier: str = "") -> str:
        found = arn.parse(reference, self._identity, qualifier)
        if found.qualifier not in _LATEST:
            raise errors.ResourceNotFound(
                f"Function not found: {found.name}:{found.qualifier}. This node has no versions but $LATEST."
            )
        return found.name


def _settings(request: PutFunctionEventInvokeConfigRequest | UpdateFunctionEventInvokeConfigRequest) -> EventSettings:
    if request.retry_attempts is not UNSET and request.maximum_retry_attempts is not UNSET:
        raise errors.InvalidParameterValue(
            "RetryAttempts and MaximumRetryAttempts are the same setting: give one of them. "
            "RetryAttempts, which is not Lambda's, goes beyond 2."
        )
    retries = request.maximum_retry_attempts if request.retry_attempts is UNSET else request.retry_attempts
    return EventSettings(
        retries=retries,
        age_seconds=request.maximum_event_age_in_seconds,
        delay_ms=request.retry_delay_milliseconds,
    )


def _none(name: str) -> errors.ResourceNotFound:
    return errors.ResourceNotFound(
        f"The function {name} doesn't have an EventInvokeConfig: the node's defaults hold. Put one to change them."
    )
