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
from runtimed.store.events import PAUSE, Change, EventRule, EventRules
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
        self._told: set[int] = set()
        """Rules that the dispatcher may know."""
        self._changing = asyncio.Lock()

    async def load(self) -> None:
        """Tells the dispatcher's mirror what is kept, before the first connection."""
        for rule in await self._rules.all():
            self._dispatcher.preload(self._message(rule), rule.id, rule.generation)
            self._told.add(rule.id)

    async def run(self) -> None:
        """Gives up what waits for functions that were deleted; for ever."""
        while True:
            await asyncio.sleep(GONE_SECONDS)
            try:
                await self.sweep()
            except errors.ApiError as error:
                log.info("events of deleted functions: %s", error)

    async def forget_rules(self) -> None:
        """Of functions, versions and aliases that were deleted: a queue that was paused would stay so, and another
        alias of the same name would find them. Raises ServiceUnavailable."""
        if self._told:
            async with self._changing:
                await self._forget(self._told - await self._rules.ids())

    async def sweep(self) -> None:
        """Once. A function's uid is never used again: nothing can handle its events any more. They are kept as dead.
        Raises ServiceUnavailable."""
        await self.forget_rules()
        waiting = {bytes(state.function_uid) for state in self._dispatcher.queues.values() if state.depth > 0}
        if not waiting:
            return
        names = await self._functions.names()  # read behind what is compared with it: a new function is among them
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
            await self._rules.uid(name)
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
            function_uid=await self._rules.uid(name) if name else NOBODY,
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
        if paused:
            await self._change_rule(name, PAUSE, lambda rule: None if rule.id else rule)
        else:
            await self._remove_rule(name, PAUSE)

    async def configure(
        self, name: str, qualifier: str, settings: EventSettings, *, merge: bool
    ) -> FunctionEventInvokeConfig:
        given = {
            "retries": settings.retries,
            "age_s": settings.age_seconds,
            "delay_ms": settings.delay_ms,
        }
        changes = {name: value for name, value in given.items() if value is not UNSET}

        def change(rule: EventRule) -> EventRule:
            if merge and not rule.id:
                raise _none(name, qualifier)
            return replace(rule if merge else _forgotten(rule), **changes)

        return self._configuration(await self._change_rule(name, qualifier, change))

    async def configuration(self, name: str, qualifier: str) -> FunctionEventInvokeConfig:
        rule = await self._rules.find(name, qualifier)
        if not rule.id:
            raise _none(name, qualifier)
        return self._configuration(rule)

    async def configurations(self, name: str) -> dict[str, FunctionEventInvokeConfig]:
        return {rule.qualifier: self._configuration(rule) for rule in await self._rules.of(name)}

    async def unconfigure(self, name: str, qualifier: str) -> None:
        if not await self._remove_rule(name, qualifier):
            raise _none(name, qualifier)

    async def _change_rule(self, name: str, qualifier: str, change: Change) -> EventRule:
        async with self._changing:
            kept = await self._rules.change(name, qualifier, change, self._now_ms())
            self._told.add(kept.id)
            try:
                await self._dispatcher.put(self._message(kept), kept.id, kept.generation)
            except (Refused, Unconnected) as error:
                raise _untold(error) from None
        return kept

    async def _remove_rule(self, name: str, qualifier: str) -> bool:
        """Was there one?"""
        async with self._changing:
            removed = await self._rules.remove(name, qualifier)
            if not removed.id:
                return False
            await self._forget({removed.id})
        return True

    async def _forget(self, rules: set[int]) -> None:
        """Those that are told are forgotten by the dispatcher; what fails here, `sweep` does."""
        for rule in rules & self._told:
            try:
                await self._dispatcher.delete_async(rule)
            except (Refused, Unconnected) as error:
                raise _untold(error) from None
            self._told.discard(rule)

    def _message(self, rule: EventRule) -> wire.PutAsync:
        if rule.qualifier == PAUSE:
            return wire.PutAsync(function_uid=rule.uid, paused=1)  # without an age it says nothing of retries
        return wire.PutAsync(
            function_uid=rule.uid,
            qualifier=rule.qualifier,
            retries=quotas.EVENT_RETRIES if rule.retries is None else rule.retries,
            base_delay_ms=self._delay_ms if rule.delay_ms is None else rule.delay_ms,
            max_age_ms=(quotas.EVENT_AGE_SECONDS if rule.age_s is None else rule.age_s) * 1000,
        )

    def _configuration(self, rule: EventRule) -> FunctionEventInvokeConfig:
        return FunctionEventInvokeConfig(
            last_modified=rule.modified_ms / 1000,
            function_arn=self._identity.function_arn(rule.name, rule.qualifier),
            maximum_retry_attempts=UNSET if rule.retries is None else rule.retries,
            maximum_event_age_in_seconds=UNSET if rule.age_s is None else rule.age_s,
            retry_delay_milliseconds=UNSET if rule.delay_ms is None else rule.delay_ms,
        )


def _forgotten(rule: EventRule) -> EventRule:
    """With the node's defaults."""
    return replace(rule, retries=None, age_s=None, delay_ms=None)


def _none(name: str, qualifier: str) -> errors.ResourceNotFound:
    return errors.ResourceNotFound(
        f"The function {name}:{qualifier} doesn't have an EventInvokeConfig: the node's defaults hold. "
        "Put one to change them."
    )


def _untold(error: Exception) -> errors.ServiceUnavailable:
    return errors.ServiceUnavailable(f"The dispatcher cannot be told: {error}. It is kept; try again.")


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
