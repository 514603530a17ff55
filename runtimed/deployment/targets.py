"""What the dispatcher and a sandbox must know of a target, from what the store keeps."""

from __future__ import annotations

import msgspec
from msgspec import UNSET

from runtimed.model import wire
from runtimed.model.arn import Identity
from runtimed.model.function import LogFormat, SnapshotChoice
from runtimed.model.runtime import is_executed
from runtimed.model.wire import LogFormat as WireLogFormat
from runtimed.store.targets import Definition, Target

SNAP_START_INIT_SECONDS = 130  # Lambda's, or the function's time-out where that is longer
UNRESERVED = 0xFFFFFFFF  # no reserved concurrency, which is not 0

_SNAPSHOT_MODES = {
    SnapshotChoice.OFF: wire.SnapshotMode.OFF,
    SnapshotChoice.AUTO: wire.SnapshotMode.AUTOMATIC,
    SnapshotChoice.ON: wire.SnapshotMode.ON,
}


def log_group(target: Target) -> str:
    """Lambda's default, unless the owner chose another."""
    chosen = target.definition.logging.log_group
    return f"/aws/lambda/{target.name}" if chosen is UNSET else chosen


def put_target(
    target: Target,
    identity: Identity,
    *,
    environments: int,
    waiting: int,
    keep_alive_ms: int,
    freeze_after_ms: int,
    init_seconds: int,
    executable: str = "",
    snap_start: bool = False,
    reserved: int | None = None,
) -> wire.PutTarget:
    """The message that makes the dispatcher know it. `executable`: of a runtime that is not Python; `reserved`:
    concurrency, for the whole function."""
    definition = target.definition
    json_logs = definition.logging.log_format is LogFormat.JSON
    return wire.PutTarget(
        plan=target.id,
        function_uid=target.uid,
        function_name=target.name,
        function_version=definition.version,
        arn=identity.function_arn(target.name),
        memory_mb=definition.memory_size,
        timeout_ms=definition.timeout * 1000,
        init_timeout_ms=init_limit(definition, init_seconds) * 1000,
        max_environments=environments,
        max_concurrency=UNRESERVED if reserved is None else reserved,
        max_waiting=waiting,
        keep_alive_ms=keep_alive_ms,
        freeze_after_ms=freeze_after_ms,
        log_format=WireLogFormat.JSON if json_logs else WireLogFormat.TEXT,
        runtime_api=int(is_executed(definition.runtime)),
        configuration=configuration(target, identity, executable, snap_start),
    )


def init_limit(definition: Definition, usual: int) -> int:
    """Seconds that an init phase may take. Lambda gives more to one that ends with a snapshot."""
    if definition.choice is not SnapshotChoice.ON:
        return usual
    return max(usual, SNAP_START_INIT_SECONDS, definition.timeout)


def snapshot_mode(definition: Definition, node: str) -> wire.SnapshotMode:
    """Whether its environments begin as copies; `node`: what the node says (pools.snapshot) where the function leaves
    it to that."""
    if is_executed(definition.runtime):
        return wire.SnapshotMode.OFF
    choice = definition.choice
    return _SNAPSHOT_MODES[SnapshotChoice(node) if choice is SnapshotChoice.NODE else choice]


def configuration(target: Target, identity: Identity, executable: str = "", snap_start: bool = False) -> bytes:
    """The JSON that START carries into the sandbox; runtimed/bootstrap/environment.py reads it."""
    definition = target.definition
    level = definition.logging.application_log_level
    return msgspec.json.encode(
        {
            "handler": definition.handler,
            "function_name": target.name,
            "function_version": definition.version,
            "memory_mb": definition.memory_size,
            "arn_account": identity.account,
            "log_group": log_group(target),
            "region": identity.region,
            "log_format": definition.logging.log_format.value,
            "application_log_level": "INFO" if level is UNSET else level.value,
            "environment": target.environment,
            "runtime": definition.runtime,
            "executable": executable,
            "snap_start": snap_start,
            "timeout_ms": definition.timeout * 1000,
        }
    )
