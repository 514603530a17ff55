"""The log of one function as the API offers it: filtered, rendered, and followed."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

from msgspec import UNSET

from runtimed.dispatch.logs import Cursor, Kind, Record, Status, parse_report
from runtimed.dispatch.render import render, request_id, stream_of
from runtimed.model.function import LogFormat, LoggingConfig, SystemLogLevel
from runtimed.model.log import LogEvent, LogKind, TailLogsRequest
from runtimed.store.functions import FunctionStore

FOLLOW_SECONDS = 0.2  # between looks at the files' sizes while nothing comes

_KINDS = {
    Kind.LINE: LogKind.FUNCTION,
    Kind.INIT_START: LogKind.INIT_START,
    Kind.START: LogKind.START,
    Kind.END: LogKind.END,
    Kind.REPORT: LogKind.REPORT,
    Kind.INIT_REPORT: LogKind.INIT_REPORT,
    Kind.DROPPED: LogKind.DROPPED,
}


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
        wanted = uuid.UUID(request.request_id).bytes if request.request_id else None
        since = 0 if request.since is UNSET else int(request.since.timestamp() * 1_000_000)
        cursor = Cursor(self._directory / function.uid.hex())
        if since:
            await asyncio.to_thread(cursor.skip_before, since)
        elif request.follow and wanted is None:
            await asyncio.to_thread(cursor.skip_all)
        while True:
            records = await asyncio.to_thread(cursor.read)
            for record in records:
                if record.time_us >= since and (wanted is None or record.request_id == wanted):
                    event = _event(record, configuration.logging_config, configuration.runtime)
                    if event is not None:
                        yield event
            if not records:
                if not request.follow:
                    return
                await asyncio.sleep(FOLLOW_SECONDS)


def _event(record: Record, logging: LoggingConfig, runtime: str) -> LogEvent | None:
    as_json = logging.log_format is LogFormat.JSON
    if as_json and logging.system_log_level is SystemLogLevel.WARN and not _worth_a_warning(record):
        return None
    message = render(record, as_json=as_json, runtime=runtime)
    kind = _KINDS.get(Kind(record.kind)) if record.kind in _KINDS else None
    if message is None or kind is None:
        return None
    return LogEvent(
        time=datetime.fromtimestamp(record.time_us / 1_000_000, UTC),
        kind=kind,
        message=message,
        request_id=request_id(record),
        log_stream=stream_of(record),
    )


def _worth_a_warning(record: Record) -> bool:
    """What a system log level of WARN lets through."""
    if record.kind == Kind.REPORT:
        report = parse_report(record.payload)
        return report is not None and report.status not in (Status.SUCCESS, Status.ERROR)
    return record.kind not in (Kind.START, Kind.END, Kind.INIT_START)
