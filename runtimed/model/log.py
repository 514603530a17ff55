"""Logs: what a function wrote and what the platform wrote about it."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import Annotated

from msgspec import Meta, field

from runtimed.model import quotas
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
    POSITION = "Position"
    """Nothing was written: only `cursor` says how far the log has been looked at."""


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
    cursor: str = ""
    """Where the event ends in the function's log, for `after`. Opaque."""


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
    until: datetime | UnsetType = UNSET
    """Only events at or before this moment."""
    contains: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=1024, description="texts of 1 to 1024 characters.")]],
        Meta(max_length=16, description="at most 16 texts of 1 to 1024 characters."),
    ] = field(default_factory=list)
    """Only events whose message contains each of these texts."""
    limit: (
        Annotated[int, Meta(ge=1, le=quotas.LOG_EVENTS_MAX, description="a whole number from 1 to 10000.")] | UnsetType
    ) = UNSET
    """Of the events asked for, only the last so many; with `follow`: and then all that come."""
    after: Annotated[
        str, Meta(pattern=r"^([0-9a-f]{8}-[0-9a-f]{8}-\d{1,10})?$", description="the cursor of an event.")
    ] = ""
    """Only what follows this event. The log of a later function of the same name is read from its beginning."""
    version: Annotated[
        str, Meta(pattern=r"^(\$LATEST|[1-9][0-9]{0,14})?$", description="the number of a version, or $LATEST.")
    ] = ""
    """Only events of this version's environments."""
    positions: bool = False
    """Tell positions too: at the start of a stream that follows, and behind passages without events that were asked
    for, so that a caller who lost the stream can go on from there without loss or repetition."""
