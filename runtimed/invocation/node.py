"""The node as the API shows it: what runs, what the dispatcher counts, what the machine gives."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path

from msgspec import structs

from runtimed.dispatch.control import Dispatcher
from runtimed.invocation.statistics import counted
from runtimed.model import quotas
from runtimed.model.arn import Identity
from runtimed.model.node import (
    AccountLimit,
    AccountUsage,
    Check,
    CheckGroup,
    CheckState,
    Diagnosis,
    GetAccountSettingsResponse,
    NodeStatus,
)
from runtimed.model.runtime import RuntimeState, RuntimeStatus
from runtimed.sandbox.launcher import Launcher
from runtimed.sandbox.runtimes import Runtimes
from runtimed.store.functions import FunctionStore
from runtimed.store.ledger import Ledger
from runtimed.telemetry import checks
from runtimed.telemetry.host import host_status, own_processes

DISK_LOW_BYTES = 1 << 30

# What the control plane cannot see from its own root without privileges, and what a launcher that runs has proven.
PROVEN = frozenset({"privileges", "cgroup controllers", "loop devices", "native core", "mke2fs"})


class NodeReader:
    """Reads only."""

    def __init__(
        self,
        *,
        build: str,
        identity: Identity,
        state: Path,
        concurrency: int,
        unreserved: Callable[[], Awaitable[int]],
        started_at: datetime,
        functions: FunctionStore,
        launcher: Launcher,
        dispatcher: Dispatcher,
        runtimes: Runtimes,
        ledger: Ledger,
    ) -> None:
        """`unreserved`: of `concurrency`, what no function has for itself; `ledger`: the code store's."""
        self._build = build
        self._identity = identity
        self._state = state
        self._concurrency = concurrency
        self._unreserved = unreserved
        self._started_at = started_at
        self._functions = functions
        self._launcher = launcher
        self._dispatcher = dispatcher
        self._runtimes = runtimes
        self._ledger = ledger

    async def status(self) -> NodeStatus:
        host = await asyncio.to_thread(host_status, self._state)
        processes = await asyncio.to_thread(own_processes, self._runtimes.zygotes())
        counts = counted(self._dispatcher)
        runtimes = self.runtimes()
        warnings = [f"{runtime.path}: {runtime.reason}" for runtime in runtimes if runtime.state is RuntimeState.FAILED]
        if not self._dispatcher.ready:
            warnings.append("The dispatcher is not connected: invocations wait or fail until it is.")
        if host.disk_free_bytes < DISK_LOW_BYTES:
            warnings.append(f"{self._state} has less than a gigabyte free: packages and logs need room.")
        return NodeStatus(
            build=self._build,
            account_id=self._identity.account,
            region=self._identity.region,
            started_at=self._started_at,
            ready=self._dispatcher.ready,
            functions=await self._functions.count(),
            concurrency_limit=self._concurrency,
            environments=counts.environments,
            invocations=counts.invocations,
            host=host,
            processes=processes,
            runtimes=runtimes,
            warnings=warnings,
        )

    async def diagnose(self) -> Diagnosis:
        found = await asyncio.to_thread(checks.host, checks.Machine(state_dir=self._state))
        told = [_proven(check) for check in found]
        return Diagnosis(
            checks=[*told, *map(_of_runtime, self.runtimes()), self._of_dispatcher(), self._of_event_log()]
        )

    async def account(self) -> GetAccountSettingsResponse:
        return GetAccountSettingsResponse(
            account_limit=AccountLimit(
                total_code_size=self._ledger.limit.bytes,
                code_size_unzipped=quotas.PACKAGE_UNZIPPED_BYTES,
                code_size_zipped=quotas.PACKAGE_ZIPPED_BYTES,
                concurrent_executions=self._concurrency,
                unreserved_concurrent_executions=await self._unreserved(),
            ),
            account_usage=AccountUsage(
                total_code_size=self._ledger.used.bytes, function_count=await self._functions.count()
            ),
        )

    def runtimes(self) -> list[RuntimeStatus]:
        return self._runtimes.status()

    def _of_dispatcher(self) -> Check:
        ready = self._dispatcher.ready
        return Check(
            group=CheckGroup.PROCESS,
            name="runtimed-dispatch",
            state=CheckState.OK if ready else CheckState.MISSING,
            found="connected" if ready else "not connected",
            purpose="runs invocations",
            advice="" if ready else "It is restarted by itself; if this stays, see the node's log.",
        )

    def _of_event_log(self) -> Check:
        page = self._dispatcher.counters
        node = {} if page is None else page.node()
        files, lost = node.get("events_damaged_files", 0), node.get("events_unreadable", 0)
        trouble = f"{files} damaged files, {lost} events lost" if files or lost else ""
        if node.get("events_full"):
            trouble = f"{trouble}; takes no events" if trouble else "takes no events"
        return Check(
            group=CheckGroup.PROCESS,
            name="event log",
            state=CheckState.UNKNOWN if page is None else CheckState.WARNING if trouble else CheckState.OK,
            found="not known" if page is None else trouble or "whole",
            purpose="keeps events until they are handled",
            advice=f"Look at the node's log and the disk of {self._state / 'queue'}. Damaged files are kept there as "
            "*.damaged, for whoever wants to read them; remove them when done: they are counted at each start."
            if trouble
            else "",
        )


def _proven(check: Check) -> Check:
    if check.name not in PROVEN or check.state is CheckState.OK:
        return check
    return structs.replace(check, state=CheckState.OK, found="the launcher runs with it", advice="")


def _of_runtime(runtime: RuntimeStatus) -> Check:
    failed = runtime.state is RuntimeState.FAILED
    return Check(
        group=CheckGroup.RUNTIME,
        name=runtime.name,
        state=CheckState.WARNING if failed else CheckState.OK,
        found=f"{runtime.path} {runtime.version}".strip() + (f": {runtime.reason}" if failed else ""),
        purpose="runs functions",
        advice="Repair or remove this interpreter; functions that name it cannot be invoked." if failed else "",
    )
