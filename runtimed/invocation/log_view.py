"""Which records of a log are wanted, and how they are shown."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from msgspec import UNSET

from runtimed.dispatch.logs import TIME_MAX_US, Kind, Record, Status, parse_report
from runtimed.dispatch.render import render, request_id, stream_of
from runtimed.model.function import LogFormat, LoggingConfig, SystemLogLevel
from runtimed.model.log import LogEvent, LogKind, TailLogsRequest
from runtimed.model.version import number_of

_KINDS: dict[int, LogKind] = {
    Kind.LINE: LogKind.FUNCTION,
    Kind.INIT_START: LogKind.INIT_START,
    Kind.START: LogKind.START,
    Kind.END: LogKind.END,
    Kind.REPORT: LogKind.REPORT,
    Kind.INIT_REPORT: LogKind.INIT_REPORT,
    Kind.DROPPED: LogKind.DROPPED,
}


class View:
    """What one request wants of one function's log."""

    def __init__(self, request: TailLogsRequest, logging: LoggingConfig, runtime: str) -> None:
        self.since_us = 0 if request.since is UNSET else int(request.since.timestamp() * 1_000_000)
        self.until_us = TIME_MAX_US if request.until is UNSET else int(request.until.timestamp() * 1_000_000)
        self._request_id = uuid.UUID(request.request_id).bytes if request.request_id else None
        self._version = number_of(request.version) if request.version else None
        self._texts = request.contains
        self._bytes = [text.encode() for text in request.contains]
        self._as_json = logging.log_format is LogFormat.JSON
        self._warnings_only = self._as_json and logging.system_log_level is SystemLogLevel.WARN
        self._runtime = runtime

    def wants(self, record: Record) -> bool:
        """Cheap for what is not wanted: most records of a long log, in a search."""
        if not self.since_us <= record.time_us <= self.until_us:
            return False
        if self._request_id is not None and record.request_id != self._request_id:
            return False
        if self._version is not None and record.version != self._version:
            return False
        if record.kind == Kind.LINE:
            return all(text in record.payload for text in self._bytes)
        if record.kind not in _KINDS or (self._warnings_only and not _worth_a_warning(record)):
            return False
        message = render(record, as_json=self._as_json, runtime=self._runtime)
        return message is not None and all(text in message for text in self._texts)

    def show(self, record: Record, cursor: str) -> LogEvent:
        """A wanted record as the API tells it."""
        return LogEvent(
            time=datetime.fromtimestamp(record.time_us / 1_000_000, UTC),
            kind=_KINDS[record.kind],
            message=render(record, as_json=self._as_json, runtime=self._runtime) or "",
            request_id=request_id(record),
            log_stream=stream_of(record),
            cursor=cursor,
        )


def _worth_a_warning(record: Record) -> bool:
    """What a system log level of WARN lets through."""
    if record.kind == Kind.REPORT:
        report = parse_report(record.payload)
        return report is not None and report.status not in (Status.SUCCESS, Status.ERROR)
    if record.kind == Kind.INIT_REPORT:  # a restore that went well is reported too
        report = parse_report(record.payload)
        return report is not None and report.status != Status.SUCCESS
    return record.kind not in (Kind.START, Kind.END, Kind.INIT_START)
