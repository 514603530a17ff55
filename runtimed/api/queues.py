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
_LATEST = ("", arn.LATEST)
LIST_DEFAULT = 50

Qualified = (
    PutFunctionEventInvokeConfigRequest
    | UpdateFunctionEventInvokeConfigRequest
    | GetFunctionEventInvokeConfigRequest
    | DeleteFunctionEventInvokeConfigRequest
)


class EventQueues(Protocol):
    """The dispatcher's queues, and the rules that it follows (invocation/events.py). Names are plain, or empty for all.

    Raises ResourceNotFound for a function that there is not, ServiceUnavailable while there is no dispatcher.
    """

    async def queues(self, name: str) -> list[QueueStatus]: ...

    async def events(self, request: ListEventsRequest) -> ListEventsResponse: ...

    async def cancel(self, request: CancelEventsRequest) -> ChangedEvents: ...

    async def redrive(self, request: RedriveEventsRequest) -> ChangedEvents: ...

    async def pause(self, name: str, paused: bool) -> None: ...

    async def configure(
        self, name: str, qualifier: str, settings: EventSettings, *, merge: bool
    ) -> FunctionEventInvokeConfig:
        """`merge`: into what there is, which must be; else instead of it."""
        ...

    async def configuration(self, name: str, qualifier: str) -> FunctionEventInvokeConfig:
        """Raises ResourceNotFound, too, where nothing is configured."""
        ...

    async def configurations(self, name: str) -> dict[str, FunctionEventInvokeConfig]:
        """By qualifier, in the order of these."""
        ...

    async def unconfigure(self, name: str, qualifier: str) -> None:
        """Raises as `configuration`."""
        ...


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
        return await self._queues.configure(*self._qualified(request), _settings(request), merge=False)

    @operation(route=Route("POST", _CONFIG, 200, lambda_members.event_invoke_config))
    async def update_function_event_invoke_config(
        self, request: UpdateFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        return await self._queues.configure(*self._qualified(request), _settings(request), merge=True)

    @operation(safe=True, route=Route("GET", _CONFIG))
    async def get_function_event_invoke_config(
        self, request: GetFunctionEventInvokeConfigRequest
    ) -> FunctionEventInvokeConfig:
        return await self._queues.configuration(*self._qualified(request))

    @operation(route=Route("DELETE", _CONFIG, 204))
    async def delete_function_event_invoke_config(
        self, request: DeleteFunctionEventInvokeConfigRequest
    ) -> DeleteFunctionEventInvokeConfigResponse:
        await self._queues.unconfigure(*self._qualified(request))
        return DeleteFunctionEventInvokeConfigResponse()

    @operation(safe=True, route=Route("GET", f"{_CONFIG}/list"))
    async def list_function_event_invoke_configs(
        self, request: ListFunctionEventInvokeConfigsRequest
    ) -> ListFunctionEventInvokeConfigsResponse:
        found = await self._queues.configurations(self._name(request.function_name))
        left = [qualifier for qualifier in found if qualifier > request.marker]
        page = left[: request.max_items or LIST_DEFAULT]
        return ListFunctionEventInvokeConfigsResponse(
            function_event_invoke_configs=[found[qualifier] for qualifier in page],
            next_marker=page[-1] if len(left) > len(page) else "",
        )

    def _any(self, reference: str) -> str:
        return self._name(reference) if reference else ""

    def _name(self, reference: str) -> str:
        """Of a whole function: all of its versions have one queue."""
        found = arn.parse(reference, self._identity)
        if found.qualifier not in _LATEST:
            raise errors.InvalidParameterValue(
                f"FunctionName: the versions and aliases of {found.name} have one queue. "
                f"Leave the qualifier {found.qualifier} out."
            )
        return found.name

    def _qualified(self, request: Qualified) -> tuple[str, str]:
        """What a configuration is of: without a qualifier, $LATEST's."""
        found = arn.parse(request.function_name, self._identity, request.qualifier)
        return found.name, found.qualifier or arn.LATEST


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
