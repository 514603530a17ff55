"""Queues in memory, for the API's tests: rules are kept, events there are none."""

from __future__ import annotations

import time

from msgspec.structs import replace

from runtimed.model import errors
from runtimed.model.queue import (
    CancelEventsRequest,
    ChangedEvents,
    EventSettings,
    FunctionEventInvokeConfig,
    ListEventsRequest,
    ListEventsResponse,
    QueueStatus,
    RedriveEventsRequest,
)
from runtimed.model.shape import UNSET


class Shelf:
    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.rules: dict[tuple[str, str], FunctionEventInvokeConfig] = {}

    async def queues(self, name: str) -> list[QueueStatus]:
        return [
            QueueStatus(function_name=known, waiting=0, running=0, dead=0, paused=True)
            for known in sorted(self.paused)
            if name in ("", known)
        ]

    async def events(self, request: ListEventsRequest) -> ListEventsResponse:
        return ListEventsResponse()

    async def cancel(self, request: CancelEventsRequest) -> ChangedEvents:
        return ChangedEvents(changed=0, left=0)

    async def redrive(self, request: RedriveEventsRequest) -> ChangedEvents:
        return ChangedEvents(changed=0, left=0)

    async def pause(self, name: str, paused: bool) -> None:
        (self.paused.add if paused else self.paused.discard)(name)

    async def configure(
        self, name: str, qualifier: str, settings: EventSettings, *, merge: bool
    ) -> FunctionEventInvokeConfig:
        before = FunctionEventInvokeConfig(
            last_modified=0, function_arn=f"arn:aws:lambda:us-east-1:000000000000:function:{name}:{qualifier}"
        )
        if merge:
            before = await self.configuration(name, qualifier)
        given = {
            "maximum_retry_attempts": settings.retries,
            "maximum_event_age_in_seconds": settings.age_seconds,
            "retry_delay_milliseconds": settings.delay_ms,
        }
        changes = {member: value for member, value in given.items() if value is not UNSET}
        self.rules[name, qualifier] = replace(before, last_modified=time.time(), **changes)
        return self.rules[name, qualifier]

    async def configuration(self, name: str, qualifier: str) -> FunctionEventInvokeConfig:
        found = self.rules.get((name, qualifier))
        if found is None:
            raise errors.ResourceNotFound(f"The function {name}:{qualifier} doesn't have an EventInvokeConfig.")
        return found

    async def configurations(self, name: str) -> dict[str, FunctionEventInvokeConfig]:
        return {qualifier: self.rules[known, qualifier] for known, qualifier in sorted(self.rules) if known == name}

    async def unconfigure(self, name: str, qualifier: str) -> None:
        await self.configuration(name, qualifier)
        del self.rules[name, qualifier]
