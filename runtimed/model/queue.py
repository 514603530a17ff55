"""Queues of asynchronous invocation: what waits, what was given up, and the rules of retrying."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta, Struct, field

from runtimed.model import quotas
from runtimed.model.function import FunctionName, Qualifier
from runtimed.model.shape import UNSET, Shape, UnsetType

EventId = Annotated[
    str,
    Meta(
        pattern=r"^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$",
        description="a UUID, such as 8f5d0b4c-3b1f-4d59-9a53-0e8c1f0a7d11: what its acceptance was answered with.",
    ),
]
AnyFunction = Annotated[str, Meta(max_length=256, description="a function's name or ARN, or empty for all.")]


class EventState(Enum):
    WAITING = "Waiting"
    """For its first attempt or for a retry."""
    RUNNING = "Running"
    DEAD = "Dead"
    """Given up: its attempts are used up, it is too old, or its function may not run."""


class QueueStatus(Shape, frozen=True, kw_only=True):
    """A function's queue."""

    function_name: str
    waiting: int
    """Events that are being invoked included."""
    running: int
    dead: int
    paused: bool = False
    throttled_until: datetime | UnsetType = UNSET
    """Absent: nothing holds it up."""
    oldest_accepted_at: datetime | UnsetType = UNSET
    """When the oldest of those waiting was accepted."""


class ListQueuesRequest(Shape, frozen=True, kw_only=True):
    function_name: AnyFunction = ""


class ListQueuesResponse(Shape, frozen=True, kw_only=True):
    """In the order of their functions' names; functions that never had an event since the start have none."""

    queues: list[QueueStatus] = field(default_factory=list)


class QueuedEvent(Shape, frozen=True, kw_only=True):
    """An event that is in the log."""

    event_id: str
    function_name: str
    qualifier: str = ""
    state: EventState
    approximate_invoke_count: int
    chain_depth: int
    """Functions before it in its chain."""
    accepted_at: datetime
    payload_size: int
    payload: bytes = b""
    """Its first 64 KB, when asked for."""
    trace_id: str = ""


class ListEventsRequest(Shape, frozen=True, kw_only=True):
    function_name: AnyFunction = ""
    event_id: EventId = ""
    """Only this one."""
    state: EventState | UnsetType = UNSET
    """Only those in this state."""
    payloads: bool = False
    max_items: Annotated[int, Meta(ge=0, le=1000, description="a whole number up to 1000; 0 stands for 50.")] = 0
    marker: Annotated[str, Meta(max_length=64, description="the next_marker of the page before.")] = ""


class ListEventsResponse(Shape, frozen=True, kw_only=True):
    """About in the order of acceptance."""

    events: list[QueuedEvent] = field(default_factory=list)
    next_marker: str = ""
    """Empty: that was all."""


class CancelEventsRequest(Shape, frozen=True, kw_only=True):
    """Events to be removed: one, or all of a function (of all functions) in a state."""

    function_name: AnyFunction = ""
    event_id: EventId = ""
    state: EventState | UnsetType = UNSET


class RedriveEventsRequest(Shape, frozen=True, kw_only=True):
    """Events that were given up, to be invoked as if they had just been accepted: one, or all."""

    function_name: AnyFunction = ""
    event_id: EventId = ""


class ChangedEvents(Shape, frozen=True, kw_only=True):
    """What came of it."""

    changed: int
    left: int
    """Those that it could not be done to: they are being invoked, or were not given up."""


class PauseQueueRequest(Shape, frozen=True, kw_only=True):
    """Nothing is taken from the function's queue any more; events are accepted as before."""

    function_name: FunctionName


class ResumeQueueRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName


class PauseQueueResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class ResumeQueueResponse(Shape, frozen=True, kw_only=True):
    """No members."""


# ---- rules: Lambda's FunctionEventInvokeConfig ---------------------------------------------------------------------

RetryAttempts = Annotated[
    int,
    Meta(ge=0, le=quotas.EVENT_RETRIES, description=f"a whole number from 0 to {quotas.EVENT_RETRIES}."),
]
OwnRetries = Annotated[
    int,
    Meta(ge=0, le=quotas.EVENT_RETRIES_OWN, description=f"a whole number from 0 to {quotas.EVENT_RETRIES_OWN}."),
]
RetryDelay = Annotated[
    int,
    Meta(
        ge=1,
        le=quotas.EVENT_DELAY_MS,
        description=f"whole milliseconds from 1 to {quotas.EVENT_DELAY_MS}, a day.",
    ),
]
EventAge = Annotated[
    int,
    Meta(
        ge=quotas.EVENT_AGE_SECONDS_MIN,
        le=quotas.EVENT_AGE_SECONDS,
        description=f"whole seconds from {quotas.EVENT_AGE_SECONDS_MIN} to {quotas.EVENT_AGE_SECONDS}.",
    ),
]


class EventSettings(Struct, frozen=True, kw_only=True):
    """What was asked for, whichever members said it; UNSET: nothing."""

    retries: int | UnsetType = UNSET
    age_seconds: int | UnsetType = UNSET
    delay_ms: int | UnsetType = UNSET


class FunctionEventInvokeConfig(Shape, frozen=True, kw_only=True):
    """How the events are retried that a function, a version or an alias is invoked with: each has its own, whatever the
    others have. A member that is absent is the node's default."""

    last_modified: float
    """Seconds since the epoch, as Lambda tells it here."""
    function_arn: str
    maximum_retry_attempts: int | UnsetType = UNSET
    """Above 2 where it was put as `retry_attempts`."""
    maximum_event_age_in_seconds: int | UnsetType = UNSET
    retry_delay_milliseconds: int | UnsetType = UNSET
    """The node's own, not Lambda's: before the first retry; before the n-th n times that."""


class PutFunctionEventInvokeConfigRequest(Shape, frozen=True, kw_only=True):
    """Replaces what there was."""

    function_name: FunctionName
    qualifier: Qualifier = ""
    maximum_retry_attempts: RetryAttempts | UnsetType = UNSET
    maximum_event_age_in_seconds: EventAge | UnsetType = UNSET
    retry_attempts: OwnRetries | UnsetType = UNSET
    """The node's own, not Lambda's, instead of `maximum_retry_attempts`: goes beyond its 2."""
    retry_delay_milliseconds: RetryDelay | UnsetType = UNSET
    """The node's own, too: before the first retry; before the n-th n times that."""


class UpdateFunctionEventInvokeConfigRequest(Shape, frozen=True, kw_only=True):
    """Changes the members that are given."""

    function_name: FunctionName
    qualifier: Qualifier = ""
    maximum_retry_attempts: RetryAttempts | UnsetType = UNSET
    maximum_event_age_in_seconds: EventAge | UnsetType = UNSET
    retry_attempts: OwnRetries | UnsetType = UNSET
    """The node's own, not Lambda's, instead of `maximum_retry_attempts`: goes beyond its 2."""
    retry_delay_milliseconds: RetryDelay | UnsetType = UNSET
    """The node's own, too: before the first retry; before the n-th n times that."""


class GetFunctionEventInvokeConfigRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = ""


class DeleteFunctionEventInvokeConfigRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier = ""


class DeleteFunctionEventInvokeConfigResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class ListFunctionEventInvokeConfigsRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    max_items: Annotated[int, Meta(ge=0, le=50, description="a whole number up to 50; 0 stands for 50.")] = 0
    marker: str = ""


class ListFunctionEventInvokeConfigsResponse(Shape, frozen=True, kw_only=True):
    """In the order of their qualifiers, by pages."""

    function_event_invoke_configs: list[FunctionEventInvokeConfig] = field(default_factory=list)
    next_marker: str = ""
