"""The log of one function as the API offers it: searched, rendered, and followed.

Files are read in threads, a piece at a time, and a piece only when the one before it was taken: however slow a caller
is, the log stays where it is, on disk.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import UNSET

from runtimed.dispatch.logs import BEGINNING, LAG_US, Cursor, Place
from runtimed.invocation.log_view import View
from runtimed.model import errors
from runtimed.model.log import LogEvent, LogKind, TailLogsRequest
from runtimed.store.functions import FunctionStore

FOLLOW_SECONDS = 0.2  # between looks at the files' sizes while nothing comes
LOOKS_PER_CHECK = 25  # of whether the function is still there


class LogReader:
    """Reads in threads; `directory` is STATE/logs."""

    def __init__(self, directory: Path, functions: FunctionStore) -> None:
        self._directory = directory
        self._functions = functions

    async def tail(self, request: TailLogsRequest) -> AsyncGenerator[LogEvent, None]:
        function = await self._functions.find(request.function_name)
        configuration = await self._functions.get(request.function_name)
        if function is None or configuration is None:
            return
        view = View(request, configuration.logging_config, configuration.runtime)
        reading = _Reading(self._directory / function.uid.hex(), function.uid, view, request)
        told = await asyncio.to_thread(reading.begin)
        if request.positions and request.follow:
            yield reading.position()
        looks = 0
        while True:
            events = await asyncio.to_thread(reading.next)
            for event in events or ():
                yield event
            if events:
                told = reading.parse(events[-1].cursor)
            if request.positions and reading.place > told:
                told = reading.place
                yield reading.position()
            if events is not None:
                looks = 0
                continue
            if not request.follow:
                return
            await asyncio.sleep(FOLLOW_SECONDS)
            looks += 1
            if looks % LOOKS_PER_CHECK == 0:
                await self._check_there(request.function_name, function.uid)

    async def _check_there(self, name: str, uid: bytes) -> None:
        function = await self._functions.find(name)
        if function is None or function.uid != uid:
            raise errors.ResourceNotFound(f"Function not found: {name} was deleted. Its log ends here.")


class _Reading:
    """One pass over a log; what blocks runs in a thread, one call at a time."""

    def __init__(self, directory: Path, uid: bytes, view: View, request: TailLogsRequest) -> None:
        self._uid = uid.hex()[:8]
        self._view = view
        self._request = request
        self._cursor = Cursor(directory, self.parse(request.after))
        self._end = BEGINNING

    @property
    def place(self) -> Place:
        return self._cursor.place

    def parse(self, cursor: str) -> Place:
        """The place that a cursor names; the beginning when it is of another function's log."""
        uid, _, place = cursor.partition("-")
        if uid != self._uid:
            return BEGINNING
        segment, _, offset = place.partition("-")
        return Place(int(segment, 16), int(offset))

    def position(self) -> LogEvent:
        """How far the log has been looked at."""
        now = datetime.fromtimestamp(time.time(), UTC)
        return LogEvent(time=now, kind=LogKind.POSITION, message="", cursor=self._text(self.place))

    def begin(self) -> Place:
        """Goes to where reading starts; returns that place."""
        request, view, cursor = self._request, self._view, self._cursor
        self._end = cursor.end()
        if view.since_us:
            cursor.skip_before(view.since_us)
        if request.limit is not UNSET:
            cursor.skip_to_last(request.limit, view.wants, view.since_us)
        elif request.follow and not (view.since_us or request.request_id or request.after):
            cursor.skip_all()
        return cursor.place

    def next(self) -> list[LogEvent] | None:
        """The events of the next piece; None when nothing more is there (now, for one that follows)."""
        # Without `follow` the end is where it was at the beginning: a busy function would have none.
        if self.place >= self._end and not self._request.follow:
            return None
        records = self._cursor.read()
        if not records or records[0].time_us > self._view.until_us + LAG_US:
            return None
        segment = self.place.segment
        return [
            self._view.show(record, self._text(Place(segment, record.end)))
            for record in records
            if self._view.wants(record)
        ]

    def _text(self, place: Place) -> str:
        return f"{self._uid}-{place.segment:08x}-{place.offset}"
