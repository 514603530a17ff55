"""The node: its status, what it needs from the machine, and the runtimes it offers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import TYPE_CHECKING, Protocol

from runtimed.api.operation import Route, operation
from runtimed.model.node import (
    DiagnoseRequest,
    Diagnosis,
    GetAccountSettingsRequest,
    GetAccountSettingsResponse,
    GetStatisticsRequest,
    GetStatusRequest,
    ListRuntimesRequest,
    ListRuntimesResponse,
    NodeStatus,
    Statistics,
    WatchStatisticsRequest,
)

if TYPE_CHECKING:
    from runtimed.model.runtime import RuntimeStatus


class NodeReader(Protocol):
    """What is known about the node itself (daemon.py puts it together)."""

    async def status(self) -> NodeStatus: ...

    async def diagnose(self) -> Diagnosis:
        """The checks of telemetry/checks.py, and what the launcher reported of kernel, cgroups and runtimes."""
        ...

    async def account(self) -> GetAccountSettingsResponse: ...

    def runtimes(self) -> list[RuntimeStatus]:
        """Every interpreter found, newest first; several may share a name, then the first one that works counts."""
        ...


class StatisticsReader(Protocol):
    """What the dispatcher counts (invocation/statistics.py)."""

    async def get(self, request: GetStatisticsRequest) -> Statistics: ...

    def watch(self, request: WatchStatisticsRequest) -> AsyncGenerator[Statistics, None]:
        """Ends only when closed."""
        ...


class Node:
    """Operations on the node."""

    def __init__(self, node: NodeReader, statistics: StatisticsReader) -> None:
        self._node = node
        self._statistics = statistics

    @operation(safe=True)
    async def get_status(self, request: GetStatusRequest) -> NodeStatus:
        return await self._node.status()

    @operation(safe=True)
    async def diagnose(self, request: DiagnoseRequest) -> Diagnosis:
        return await self._node.diagnose()

    @operation(safe=True, route=Route("GET", "/2016-08-19/account-settings"))
    async def get_account_settings(self, request: GetAccountSettingsRequest) -> GetAccountSettingsResponse:
        return await self._node.account()

    @operation(safe=True)
    async def list_runtimes(self, request: ListRuntimesRequest) -> ListRuntimesResponse:
        return ListRuntimesResponse(runtimes=self._node.runtimes())

    @operation(safe=True)
    async def get_statistics(self, request: GetStatisticsRequest) -> Statistics:
        return await self._statistics.get(request)

    @operation(safe=True)
    async def watch_statistics(self, request: WatchStatisticsRequest) -> AsyncIterator[Statistics]:
        async with aclosing(self._statistics.watch(request)) as found:
            async for statistics in found:
                yield statistics
