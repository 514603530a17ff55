"""Asynchronous invocation as the control plane sees it: the rules that the dispatcher follows, and what it is asked
about its queues. The events themselves are the dispatcher's."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from runtimed.dispatch.control import Dispatcher
from runtimed.link.mirror import Refused, Unconnected
from runtimed.model import errors, quotas, wire
from runtimed.model.arn import Identity
from runtimed.model.queue import (
    CancelEventsRequest,
    ChangedEvents,
    EventSettings,
    EventState,
    FunctionEventInvokeConfig,
    ListEventsRequest,
    ListEventsResponse,
    QueuedEvent,
    QueueStatus,
    RedriveEventsRequest,
)
from runtimed.store.events import Change, EventRule, EventRules
from runtimed.store.functions import FunctionStore

PAGE = 1000
"""Events that the dispatcher looks at in one step of a long operation."""
LIST_DEFAULT = 50
LIST_TRIES = 50
"""Pages of nothing that are asked for before an empty one is answered."""
GONE_SECONDS = 5.0
"""Between looks for events of functions that were deleted."""
NOBODY = bytes(16)
STATES = {
    EventState.WAITING: wire.EventState.WAITING,
    EventState.RUNNING: wire.EventState.RUNNING,
    EventState.DEAD: wire.EventState.DEAD,
}
log = logging.getLogger(__name__)

_STATES_BACK = {int(theirs): ours for ours, theirs in STATES.items()}


def node_rule(*, delay_ms: int, chain: int, dead: int) -> wire.PutAsync:
    """Of all functions that have none of their own: Lambda's, with the node's delay."""
    return wire.PutAsync(
        retries=quotas.EVENT_RETRIES,
        base_delay_ms=delay_ms,
        max_age_ms=quotas.EVENT_AGE_SECONDS * 1000,
        chain_max=chain,
        dead_max=dead,
    )


class Events:
    """Queues and rules; api.queues' performer."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        rules: EventRules,
        functions: FunctionStore,
        identity: Identity,
        *,
        delay_ms: int,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._dispatcher = dispatcher
        self._rules = rules
        self._functions = functions
        self._identity = identity
        self._delay_ms = delay_ms
        self._now_ms = now_ms
        self._told: dict[int, bytes] = {}

    async def load(self) -> None:
        """Tells the dispatcher's mirror what is kept, before the first connection."""
        for rule in await self._rules.all():
            self._dispatcher.preload(self._message(rule), rule.function, rule.generation)
            self._told[rule.function] = rule.uid

    async def run(self) -> None:
        """Gives up what waits for functions that were deleted; for ever."""
        while True:
            await asyncio.sleep(GONE_SECONDS)
            try:
                await self.sweep()
            except errors.ApiError as error:
                log.info("events of deleted functions: %s", error)

    async def sweep(self) -> None:
        """Once. A function's uid is never used again: nothing can handle its events any more. They are kept as dead.
        Its rule goes too, since a queue that was paused would stay so. Raises ServiceUnavailable."""
        waiting = {bytes(state.function_uid) for state in self._dispatcher.queues.values() if state.depth > 0}
        told = dict(self._told)
        if not waiting and not told:
            return
        names = await self._functions.names()  # read behind what is compared with it: a new function is among them
        for function, uid in told.items():
            if uid not in names:
                await self._dispatcher.delete_async(function)
                del self._told[function]
        for uid in waiting - names.keys():
            given_up = await self._change(
                wire.QueueOp(
                    operation=wire.QueueOperation.GIVE_UP,
                    function_uid=uid,
                    event=NOBODY,
                    state=wire.EventState.WAITING,
                )
            )
            if given_up.changed:
                log.info("%d events of a function that was deleted are given up", given_up.changed)

    # ---- queues ------------------------------------------------------------------------------------------------

    async def queues(self, name: str) -> list[QueueStatus]:
        names = await self._functions.names()
        if name:
            await self._rules.find(name)
        found = [
            _status(names[bytes(state.function_uid)], state)
            for state in self._dispatcher.queues.values()
            if names.get(bytes(state.function_uid)) in ({name} if name else set(names.values()))
        ]
        return sorted(found, key=lambda queue: queue.function_name)

    async def events(self, request: ListEventsRequest) -> ListEventsResponse:
        wanted = await self._wanted(request.function_name, request.event_id, request.state)
        segment, index = _read_marker(request.marker)
        most, more = request.max_items or LIST_DEFAULT, True
        found: list[wire.QueueEvent] = []
        for _ in range(LIST_TRIES):
            events, done = await self._ask(
                replace(
                    wanted,
                    operation=wire.QueueOperation.LIST,
                    payload=int(request.payloads),
                    limit=most - len(found) if not request.event_id and request.state is UNSET else PAGE,
                    at_segment=segment,
                    at_index=index,
                )
            )
            found += events
            segment, index, more = done.at_segment, done.at_index, bool(done.more)
            if not more or len(found) >= most or (request.event_id and found):
                break
        names = await self._functions.names()
        listed = [_event(event, names) for event in found]
        return ListEventsResponse(events=listed, next_marker=f"{segment:x}.{index:x}" if more else "")

    async def cancel(self, request: CancelEventsRequest) -> ChangedEvents:
        wanted = await self._wanted(request.function_name, request.event_id, request.state)
        return await self._change(replace(wanted, operation=wire.QueueOperation.CANCEL))

    async def redrive(self, request: RedriveEventsRequest) -> ChangedEvents:
        # A named event that was not given up is counted as left; of all others only those that were are looked at.
        state = UNSET if request.event_id else EventState.DEAD
        wanted = await self._wanted(request.function_name, request.event_id, state)
        return await self._change(replace(wanted, operation=wire.QueueOperation.REDRIVE))

    async def _change(self, wanted: wire.QueueOp) -> ChangedEvents:
        changed = left = segment = index = 0
        while True:
            _, done = await self._ask(replace(wanted, limit=PAGE, at_segment=segment, at_index=index))
            changed, left = changed + done.matched, left + done.busy
            segment, index = done.at_segment, done.at_index
            if not done.more:
                break
        if any(wanted.event) and changed + left == 0:
            raise errors.ResourceNotFound(
                f"Event not found: {uuid.UUID(bytes=wanted.event)}. It was handled, or never accepted here."
            )
        return ChangedEvents(changed=changed, left=left)

    async def _wanted(self, name: str, event: str, state: EventState | UnsetType) -> wire.QueueOp:
        return wire.QueueOp(
            operation=wire.QueueOperation.LIST,
            function_uid=(await self._rules.find(name)).uid if name else NOBODY,
            event=uuid.UUID(event).bytes if event else NOBODY,
            state=wire.EventState.ANY if state is UNSET else STATES[state],
        )

    async def _ask(self, message: wire.QueueOp) -> tuple[list[wire.QueueEvent], wire.QueueDone]:
        try:
            events, done = await self._dispatcher.operate(message)
        except (Refused, Unconnected) as error:
            raise errors.ServiceUnavailable(f"The dispatcher cannot be asked: {error}. Try again.") from None
        if done.error:
            raise errors.ServiceUnavailable(
                "The event log is not open: it is being read, or cannot be; see the node's log. Try again."
            )
        return events, done

    # ---- rules -------------------------------------------------------------------------------------------------

    async def pause(self, name: str, paused: bool) -> None:
        await self._change_rule(name, lambda rule: replace(rule, paused=paused) if rule.paused != paused else None)

    async def configure(self, name: str, settings: EventSettings, *, merge: bool) -> FunctionEventInvokeConfig:
        given = {
            "retries": settings.retries,
            "age_s": settings.age_seconds,
            "delay_ms": settings.delay_ms,
        }
        changes = {name: value for name, value in given.items() if value is not UNSET}

        def change(rule: EventRule) -> EventRule:
            return replace(rule if merge else _forgotten(rule), configured=True, **changes)

        return self._configuration(await self._change_rule(name, change))

    async def configuration(self, name: str) -> FunctionEventInvokeConfig | None:
        rule = await self._rules.find(name)
        return self._configuration(rule) if rule.configured else None

    async def unconfigure(self, name: str) -> None:
        await self._change_rule(name, lambda rule: replace(_forgotten(rule), configured=False))

    async def _change_rule(self, name: str, change: Change) -> EventRule:
        kept = await self._rules.change(name, change, self._now_ms())
        if kept.generation == 0:  # nothing ever was
            return kept
        try:
            self._told[kept.function] = kept.uid
            await self._dispatcher.put(self._message(kept), kept.function, kept.generation)
        except (Refused, Unconnected) as error:
            raise errors.ServiceUnavailable(f"The dispatcher cannot be told: {error}. It is kept; try again.") from None
        return kept

    def _message(self, rule: EventRule) -> wire.PutAsync:
        return wire.PutAsync(
            function_uid=rule.uid,
            retries=quotas.EVENT_RETRIES if rule.retries is None else rule.retries,
            base_delay_ms=self._delay_ms if rule.delay_ms is None else rule.delay_ms,
            max_age_ms=(quotas.EVENT_AGE_SECONDS if rule.age_s is None else rule.age_s) * 1000,
            paused=int(rule.paused),
        )

    def _configuration(self, rule: EventRule) -> FunctionEventInvokeConfig:
        return FunctionEventInvokeConfig(
            last_modified=rule.modified_ms / 1000,
            function_arn=self._identity.function_arn(rule.name, "$LATEST"),
            maximum_retry_attempts=UNSET if rule.retries is None else rule.retries,
            maximum_event_age_in_seconds=UNSET if rule.age_s is None else rule.age_s,
            retry_delay_milliseconds=UNSET if rule.delay_ms is None else rule.delay_ms,
        )


def _forgotten(rule: EventRule) -> EventRule:
    """With the node's defaults."""
    return replace(rule, retries=None, age_s=None, delay_ms=None)


def _moment(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, UTC)


def _status(name: str, state: wire.QueueState) -> QueueStatus:
    return QueueStatus(
        function_name=name,
        waiting=state.depth,
        running=state.in_flight,
        dead=state.dead,
        paused=bool(state.paused),
        throttled_until=_moment(state.gated_until_ms) if state.gated_until_ms else UNSET,
        oldest_accepted_at=_moment(state.oldest_ms) if state.oldest_ms else UNSET,
    )


def _event(event: wire.QueueEvent, names: dict[bytes, str]) -> QueuedEvent:
    return QueuedEvent(
        event_id=str(uuid.UUID(bytes=bytes(event.event))),
        function_name=names.get(bytes(event.function_uid), event.name),
        qualifier=event.qualifier,
        state=_STATES_BACK[event.state],
        approximate_invoke_count=event.attempts,
        chain_depth=event.depth,
        accepted_at=_moment(event.accepted_ms),
        payload_size=event.total,
        payload=bytes(event.payload),
        trace_id=event.trace,
    )


def _read_marker(marker: str) -> tuple[int, int]:
    if not marker:
        return 0, 0
    segment, _, index = marker.partition(".")
    try:
        found = int(segment, 16), int(index, 16)
    except ValueError:
        found = -1, -1
    if not (0 <= found[0] < 1 << 64 and 0 <= found[1] < 1 << 32):
        raise errors.InvalidParameterValue(f"Marker: {marker[:80]!r} is not one that a page of events ended with.")
    return found
