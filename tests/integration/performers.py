"""Performers behind the API for tests of what lies above it: small, and real: SQLite, files, subprocesses.

They keep no sandbox and no rule of Lambda's but those that the tests look at.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import sqlite3
import subprocess
import sys
import time
import uuid
import zipfile
from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from runtimed.api.operation import Upload
from runtimed.api.table import Performers
from runtimed.model import errors
from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import (
    CreateFunctionRequest,
    FunctionConfiguration,
    LastUpdateStatus,
    State,
    UpdateFunctionCodeRequest,
    UpdateFunctionConfigurationRequest,
)
from runtimed.model.invocation import InvocationType, InvokeRequest, InvokeResponse, LogType
from runtimed.model.log import LogEvent, LogKind, TailLogsRequest
from runtimed.model.node import (
    AccountLimit,
    AccountUsage,
    Check,
    CheckGroup,
    CheckState,
    Diagnosis,
    EnvironmentCounts,
    FunctionStatistics,
    GetAccountSettingsResponse,
    GetStatisticsRequest,
    HostStatus,
    InvocationCounts,
    NodeStatus,
    ProcessStatus,
    Statistics,
    WatchStatisticsRequest,
)
from runtimed.model.runtime import RuntimeState, RuntimeStatus
from tests.integration import shown
from tests.integration.queue_performer import Shelf
from tests.integration.reserves import Bounds, Purse, Reserves
from tests.integration.version_shelf import VersionPages, VersionShelf

RUNTIME = f"python3.{sys.version_info.minor}"

# Runs a handler and answers with its result; an exception becomes the error object and exit status 1.
BOOTSTRAP = """
import importlib, json, sys, traceback
sys.path.insert(0, sys.argv[1])
module, _, name = sys.argv[2].rpartition(".")
out, sys.stdout = sys.stdout, sys.stderr
try:
    handler = getattr(importlib.import_module(module.replace("/", ".")), name)
    out.write(json.dumps(handler(json.load(sys.stdin), None)))
except Exception as error:
    out.write(json.dumps({
        "errorMessage": str(error),
        "errorType": type(error).__name__,
        "stackTrace": traceback.format_tb(error.__traceback__),
    }))
    sys.exit(1)
"""


class Registry(VersionPages):
    """Functions in a table of SQLite."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.database = sqlite3.connect(directory / "functions.db", isolation_level=None)
        self.database.execute("CREATE TABLE functions (name TEXT PRIMARY KEY, configuration BLOB)")

    async def get(self, name: str, qualifier: str = "") -> FunctionConfiguration | None:
        query, values = "SELECT configuration FROM functions WHERE name = ?", (name,)
        if qualifier not in ("", LATEST):
            query = (
                "SELECT configuration FROM versions WHERE name = ?1 AND CAST(number AS TEXT) = coalesce((SELECT "
                "configuration ->> '$.FunctionVersion' FROM aliases WHERE name = ?1 AND alias = ?2), ?2)"
            )
            values += (qualifier,)
        row = self.database.execute(query, values).fetchone()
        found = row and msgspec.json.decode(row[0], type=FunctionConfiguration)
        return found and replace(found, function_arn=Identity().function_arn(name, qualifier))

    async def page(self, after: str, limit: int, prefix: str = "") -> list[FunctionConfiguration]:
        rows = self.database.execute(
            "SELECT configuration FROM functions WHERE name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
            (after, len(prefix), prefix, limit),
        )
        return [msgspec.json.decode(row[0], type=FunctionConfiguration) for row in rows]

    def put(self, configuration: FunctionConfiguration) -> FunctionConfiguration:
        self.database.execute(
            "INSERT OR REPLACE INTO functions VALUES (?, ?)",
            (configuration.function_name, msgspec.json.encode(configuration)),
        )
        return configuration


class UnpackingDeployer:
    """Unpacks below a directory; functions are Pending until `release` is set."""

    def __init__(self, identity: Identity, registry: Registry) -> None:
        self._identity, self._registry = identity, registry
        self.release = asyncio.Event()
        self.release.set()
        self.staging = registry.directory / "staging"
        self.staging.mkdir()
        self._tasks: set[asyncio.Task[None]] = set()

    async def create(self, request: CreateFunctionRequest, code: Upload) -> FunctionConfiguration:
        data = await self._receive(code)
        members = shown.members(request)
        return self._made(
            FunctionConfiguration(
                **members,
                **self._code(request.function_name, data),
                function_arn=self._identity.function_arn(request.function_name),
                version="$LATEST",
                last_modified=self._now(),
                revision_id=str(uuid.uuid4()),
                architectures=["x86_64"],
                state=State.PENDING,
                state_reason="The function is being created.",
                last_update_status=LastUpdateStatus.SUCCESSFUL,
            )
        )

    async def update_code(self, request: UpdateFunctionCodeRequest, code: Upload) -> FunctionConfiguration:
        found = await self._current(request.function_name, request.revision_id)
        data = await self._receive(code)
        return self._made(replace(found, **self._code(found.function_name, data), **self._changed()))

    async def update_configuration(self, request: UpdateFunctionConfigurationRequest) -> FunctionConfiguration:
        found = await self._current(request.function_name, request.revision_id)
        given = {
            name: shown.member(value)
            for name in request.__struct_fields__
            if name not in ("function_name", "revision_id") and (value := getattr(request, name)) is not UNSET
        }
        return self._made(replace(found, **given, **self._changed()))

    async def delete(self, name: str) -> None:
        self._registry.database.execute("DELETE FROM functions WHERE name = ?", (name,))

    async def _current(self, name: str, revision: object) -> FunctionConfiguration:
        found = await self._registry.get(name)
        assert found is not None
        if found.state is State.PENDING or found.last_update_status is LastUpdateStatus.IN_PROGRESS:
            raise errors.ResourceConflict(f"{name} is being made. Try again when it is Active.")
        if revision not in (UNSET, found.revision_id):
            raise errors.PreconditionFailed("RevisionId is not the current one. Read the function again.")
        return found

    async def _receive(self, code: Upload) -> bytes:
        staged = self.staging / uuid.uuid4().hex
        try:
            with staged.open("wb") as file:
                async for chunk in code:
                    file.write(chunk)
            data = staged.read_bytes()
        finally:
            staged.unlink()
        if not zipfile.is_zipfile(io.BytesIO(data)):
            raise errors.InvalidParameterValue("Code: this is not a zip archive. Send one.")
        return data

    def _code(self, name: str, data: bytes) -> dict[str, object]:
        digest = hashlib.sha256(data)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            archive.extractall(self._registry.directory / name / digest.hexdigest())
        return {"code_size": len(data), "code_sha256": base64.b64encode(digest.digest()).decode()}

    def _changed(self) -> dict[str, object]:
        return {
            "last_modified": self._now(),
            "revision_id": str(uuid.uuid4()),
            "last_update_status": LastUpdateStatus.IN_PROGRESS,
        }

    @staticmethod
    def _now() -> str:
        return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.000+0000")

    def _made(self, configuration: FunctionConfiguration) -> FunctionConfiguration:
        task = asyncio.ensure_future(self._finish(self._registry.put(configuration)))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return configuration

    async def _finish(self, configuration: FunctionConfiguration) -> None:
        await self.release.wait()
        bad = configuration.handler == "broken.handler"
        self._registry.put(
            replace(
                configuration,
                state=State.FAILED if bad else State.ACTIVE,
                state_reason="It is broken." if bad else UNSET,
                last_update_status=LastUpdateStatus.SUCCESSFUL,
            )
        )


class SubprocessInvoker:
    """Each invocation is a Python of its own; what it writes to standard error is the log."""

    def __init__(self, registry: Registry, logs: LogFiles) -> None:
        self._registry, self._logs = registry, logs
        self.count = 0
        self.started = asyncio.Event()

    async def invoke(self, request: InvokeRequest) -> InvokeResponse:
        found = await self._registry.get(request.function_name)
        if found is None:
            raise errors.ResourceNotFound(f"Function not found: {request.function_name}.")
        if found.handler == "full.handler":
            raise errors.TooManyRequests(
                "Rate exceeded.", reason="ConcurrentInvocationLimitExceeded", retry_after=1.5, request_id="r-1"
            )
        request_id = str(uuid.uuid4())
        if request.invocation_type is InvocationType.DRY_RUN:
            return InvokeResponse(status_code=204, request_id=request_id)
        self.count += 1
        directory = self._registry.directory / found.function_name
        digest = base64.b64decode(found.code_sha256).hex()
        begun = time.monotonic()
        process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, str(directory / digest), found.handler],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.started.set()
        # In a thread: uvloop now and then closes a child's standard input before it is written to. Shielded: a thread
        # that was cancelled before it began would leave the child to nobody.
        talk = asyncio.ensure_future(asyncio.to_thread(process.communicate, request.payload))
        try:
            out, err = await asyncio.shield(talk)
        except asyncio.CancelledError:
            process.kill()
            await asyncio.wait({talk})
            raise
        self._logs.write(found.function_name, request_id, err.decode())
        return InvokeResponse(
            status_code=200,
            request_id=request_id,
            executed_version="$LATEST",
            function_error="Unhandled" if process.returncode else UNSET,
            log_result=err[-4096:] if request.log_type is LogType.TAIL else UNSET,
            payload=out,
            duration_us=int((time.monotonic() - begun) * 1e6),
        )


class LogFiles:
    """One file of JSON lines per function."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._written = asyncio.Event()
        self.readers = 0

    def write(self, name: str, request_id: str, text: str) -> None:
        with (self._directory / f"{name}.log").open("ab") as file:
            for kind, line in (
                (LogKind.START, f"START RequestId: {request_id} Version: $LATEST"),
                *((LogKind.FUNCTION, line) for line in text.splitlines()),
                (LogKind.END, f"END RequestId: {request_id}"),
            ):
                event = LogEvent(time=datetime.now(UTC), kind=kind, message=line, request_id=request_id, log_stream="s")
                file.write(msgspec.json.encode(event) + b"\n")
        self._written.set()
        self._written = asyncio.Event()

    async def tail(self, request: TailLogsRequest) -> AsyncGenerator[LogEvent, None]:
        path = self._directory / f"{request.function_name}.log"
        path.touch()
        self.readers += 1
        try:
            with path.open("rb") as file:
                if request.follow and request.since is UNSET:
                    file.seek(0, 2)
                while True:
                    written = self._written
                    for line in file:
                        event = msgspec.json.decode(line, type=LogEvent)
                        if request.since is not UNSET and event.time < request.since:
                            continue
                        if request.request_id in ("", event.request_id):
                            yield event
                    if not request.follow:
                        return
                    await written.wait()
        finally:
            self.readers -= 1


STARTED = datetime(2026, 1, 31, 12, 0, 0, 123000, tzinfo=UTC)


class Machine:
    """A node that has this interpreter, an old one that does not work, and little to say."""

    def runtimes(self) -> list[RuntimeStatus]:
        version = ".".join(map(str, sys.version_info[:3]))
        return [
            RuntimeStatus(name=RUNTIME, version=version, path=sys.executable, state=RuntimeState.READY),
            RuntimeStatus(
                name="python3.9",
                version="3.9.0",
                path="/old",
                state=RuntimeState.FAILED,
                reason="it exits with status 1",
            ),
        ]

    async def status(self) -> NodeStatus:
        return NodeStatus(
            build="test",
            account_id="000000000000",
            region="us-east-1",
            started_at=STARTED,
            ready=True,
            functions=1,
            concurrency_limit=1000,
            environments=EnvironmentCounts(idle=2),
            invocations=InvocationCounts(total=3, latency_p50_us=70),
            host=HostStatus(kernel="6.1", architecture="x86_64", cpus=2, cpu_percent=12.5, memory_total_bytes=1 << 33),
            processes=[ProcessStatus(name="runtimed", pid=1, memory_bytes=1 << 24, cpu_ms=1500, started_at=STARTED)],
            runtimes=self.runtimes(),
            warnings=["The disk is nearly full. Delete something."],
        )

    async def account(self) -> GetAccountSettingsResponse:
        return GetAccountSettingsResponse(
            account_limit=AccountLimit(
                total_code_size=5, code_size_unzipped=4, code_size_zipped=3, concurrent_executions=2,
                unreserved_concurrent_executions=1,
            ),
            account_usage=AccountUsage(total_code_size=1, function_count=0),
        )  # fmt: skip

    async def diagnose(self) -> Diagnosis:
        return Diagnosis(
            checks=[
                Check(group=CheckGroup.KERNEL, name="version", state=CheckState.OK, found="6.1", purpose="all"),
                Check(
                    group=CheckGroup.TOOL,
                    name="mke2fs",
                    state=CheckState.MISSING,
                    found="not found",
                    purpose="makes /tmp",
                    advice="apt-get install e2fsprogs",
                ),
            ]
        )


class Counts:
    """A counter that counts looks: the n-th one finds n invocations of the function `echo`."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.looks = 0
        self.watchers = 0

    async def get(self, request: GetStatisticsRequest) -> Statistics:
        self.looks += 1
        status = await self._machine.status()
        echo = FunctionStatistics(
            function_name="echo",
            invocations=self.looks,
            errors=1,
            environments=EnvironmentCounts(idle=2, frozen=1),
            duration_p50_us=1500,
            memory_size=128,
            memory_peak_bytes=20 << 20,
        )
        quiet = [FunctionStatistics(function_name=f"quiet-{n:02}", memory_size=128) for n in range(40)]
        return Statistics(
            time=status.started_at,
            interval_ms=1000,
            ready=True,
            host=status.host,
            processes=status.processes,
            environments=status.environments,
            invocations=status.invocations,
            functions=[echo, *quiet][: request.max_items],
            functions_total=41,
        )

    async def watch(self, request: WatchStatisticsRequest) -> AsyncGenerator[Statistics, None]:
        self.watchers += 1
        try:
            while True:
                yield await self.get(GetStatisticsRequest(order=request.order, max_items=request.max_items))
                await asyncio.sleep(request.interval_ms / 1000)
        finally:
            self.watchers -= 1


def performers(directory: Path) -> Performers:
    """Everything that the API needs, in a directory of its own. Needs a running loop."""
    identity = Identity()
    registry = Registry(directory)
    logs = LogFiles(directory)
    shelf = VersionShelf(identity, registry)
    return Performers(
        identity=identity,
        functions=registry,
        deployer=UnpackingDeployer(identity, registry),
        publisher=shelf,
        aliases=shelf,
        invoker=SubprocessInvoker(registry, logs),
        concurrency=Reserves(),
        scaling=Bounds(),
        logs=logs,
        queues=Shelf(),
        keys=Purse(),
        node=Machine(),
        statistics=Counts(Machine()),
    )
