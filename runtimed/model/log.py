"""Logs: what a function wrote and what the platform wrote about it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta

from runtimed.model.function import FunctionName
from runtimed.model.shape import UNSET, Shape, UnsetType


class LogKind(Enum):
    """Who wrote an event and about what. All but FUNCTION are the platform's."""

    FUNCTION = "Function"
    INIT_START = "InitStart"
    START = "Start"
    END = "End"
    REPORT = "Report"
    INIT_REPORT = "InitReport"
    DROPPED = "Dropped"
    """Lines were lost here: the function wrote faster than its budget, or the disk is full."""


class LogEvent(Shape, frozen=True, kw_only=True):
    time: datetime
    """In UTC, when the line was read."""
    kind: LogKind
    message: str
    """The line without its newline, as `text` or JSON according to the function's log format."""
    request_id: str = ""
    """Empty: outside of any invocation, as in the init phase."""
    log_stream: str = ""
    """The environment that wrote it: YYYY/MM/DD/[version]hex."""


class TailLogsRequest(Shape, frozen=True, kw_only=True):
    """The events of a function's log, oldest first; with `follow` the stream goes on until the caller ends it."""

    function_name: FunctionName
    follow: bool = False
    since: datetime | UnsetType = UNSET
    """Only events at or after this moment; absent: all that is kept (with `follow`: only new ones)."""
    request_id: Annotated[
        str,
        Meta(
            pattern=r"^([0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})?$",
            description="the id of one invocation, such as 8476a536-e9f4-11e8-9739-2dfe598c3fcd.",
        ),
    ] = ""
    """Only events of this invocation."""
