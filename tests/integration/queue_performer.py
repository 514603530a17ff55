"""Queues in memory, for the API's tests: rules are kept, events there are none."""

from __future__ import annotations

import time

from runtimed.model.queue import (
    CancelEventsRequest,
    ChangedEvents,
    FunctionEventInvokeConfig,
    ListEventsRequest,
    ListEventsResponse,
    QueueStatus,
    RedriveEventsRequest,
)
from runtimed.model.shape import UNSET, UnsetType


class Shelf:
    def __init__(self) -> None:
        self.paused: set[str] = set()
        self.rules: dict[str, FunctionEventInvokeConfig] = {}

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
        self, name: str, retries: int | UnsetType, age: int | UnsetType, *, merge: bool
    ) -> FunctionEventInvokeConfig:
        before = self.rules.get(name) if merge else None
        self.rules[name] = FunctionEventInvokeConfig(
            last_modified=time.time(),
            function_arn=f"arn:aws:lambda:us-east-1:000000000000:function:{name}:$LATEST",
            maximum_retry_attempts=before.maximum_retry_attempts if before and retries is UNSET else retries,
            maximum_event_age_in_seconds=before.maximum_event_age_in_seconds if before and age is UNSET else age,
        )
        return self.rules[name]

    async def configuration(self, name: str) -> FunctionEventInvokeConfig | None:
        return self.rules.get(name)

    async def unconfigure(self, name: str) -> None:
        del self.rules[name]
