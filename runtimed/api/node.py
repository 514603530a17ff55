"""The node: its status, what it needs from the machine, and the runtimes it offers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runtimed.api.operation import operation
from runtimed.model.node import (
    DiagnoseRequest,
    Diagnosis,
    GetStatusRequest,
    ListRuntimesRequest,
    ListRuntimesResponse,
    NodeStatus,
)

if TYPE_CHECKING:
    from runtimed.model.runtime import RuntimeStatus


class NodeReader(Protocol):
    """What is known about the node itself (daemon.py puts it together)."""

    async def status(self) -> NodeStatus: ...

    async def diagnose(self) -> Diagnosis:
        """The checks of telemetry/checks.py, and what the launcher reported of kernel, cgroups and runtimes."""
        ...

    def runtimes(self) -> list[RuntimeStatus]:
        """Every interpreter found, newest first; several may share a name, then the first one that works counts."""
        ...


class Node:
    """Operations on the node."""

    def __init__(self, node: NodeReader) -> None:
        self._node = node

    @operation(safe=True)
    async def get_status(self, request: GetStatusRequest) -> NodeStatus:
        return await self._node.status()

    @operation(safe=True)
    async def diagnose(self, request: DiagnoseRequest) -> Diagnosis:
        return await self._node.diagnose()

    @operation(safe=True)
    async def list_runtimes(self, request: ListRuntimesRequest) -> ListRuntimesResponse:
        return ListRuntimesResponse(runtimes=self._node.runtimes())
