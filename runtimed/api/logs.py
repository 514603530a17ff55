"""Logs: read a function's log, and follow it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

import msgspec

from runtimed.api.operation import operation
from runtimed.model import arn, errors
from runtimed.model.log import LogEvent, TailLogsRequest
from runtimed.model.version import is_number

if TYPE_CHECKING:
    from runtimed.api.functions import FunctionReader


class LogReader(Protocol):
    """Reads what the dispatcher writes (dispatch/logs.py)."""

    def tail(self, request: TailLogsRequest) -> AsyncGenerator[LogEvent, None]:
        """The events asked for, oldest first; `function_name` is plain. With `follow` it ends only when closed."""
        ...


class Logs:
    """Operations on logs."""

    def __init__(self, identity: arn.Identity, functions: FunctionReader, logs: LogReader) -> None:
        self._identity = identity
        self._functions = functions
        self._logs = logs

    @operation(safe=True)
    async def tail_logs(self, request: TailLogsRequest) -> AsyncIterator[LogEvent]:
        reference = arn.parse(request.function_name, self._identity, request.version)
        name, version = reference.name, reference.qualifier
        if version not in ("", arn.LATEST) and not is_number(version):
            raise errors.InvalidParameterValue(
                f"FunctionName: logs are of versions, and {version!r} is the name of an alias. `runtimectl aliases get "
                f"{name} {version}` shows where it leads."
            )
        if await self._functions.get(name) is None:
            raise errors.ResourceNotFound(
                f"Function not found: {self._identity.function_arn(name)}. "
                "`runtimectl functions` lists those that exist."
            )
        async with aclosing(
            self._logs.tail(msgspec.structs.replace(request, function_name=name, version=version))
        ) as events:
            async for event in events:
                yield event
