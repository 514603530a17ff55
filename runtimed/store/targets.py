"""Targets as rows, and the configuration that callers see of what one is deployed for: a function or a version of it.

Environment variables are sealed with the function's uid, and opened only for who asks for the configuration, rolls the
target out or compares it.
"""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from runtimed.machines.deployment import PUBLIC, State
from runtimed.model import errors, quotas
from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import (
    Environment,
    EphemeralStorage,
    FunctionConfiguration,
    LastUpdateStatus,
    LoggingConfig,
    Snapshot,
    SnapshotChoice,
    SnapStart,
    SnapStartApplyOn,
    SnapStartOptimizationStatus,
    SnapStartResponse,
)
from runtimed.model.function import State as PublicState
from runtimed.model.shape import UNSET
from runtimed.store.packages import package_key
from runtimed.store.secrets import Secrets


class Definition(Struct, frozen=True, kw_only=True):
    """What an owner defines, but for the variables: kept as JSON. Members may be added with a default, never
    removed."""

    runtime: str
    handler: str
    description: str
    timeout: int
    memory_size: int
    storage_size: int
    logging: LoggingConfig
    zip_sha256: str
    zip_size: int
    snap_start: SnapStart = SnapStart()
    snapshot: SnapshotChoice = SnapshotChoice.NODE
    """Counts where SnapStart is not asked for; read `choice`."""
    version: str = LATEST
    """The number of a published version, in decimal."""
    described: str = ""
    """Of a published version: what the function's own description was then."""

    @property
    def choice(self) -> SnapshotChoice:
        """Whether environments may be copies. SnapStart is what older databases have alone."""
        asked = self.snap_start.apply_on is not SnapStartApplyOn.NONE
        return SnapshotChoice.ON if asked else self.snapshot

    def published(self, number: int, description: str | None) -> Definition:
        """What version `number` is made of; `description`: its own, None: the function's."""
        return msgspec.structs.replace(
            self,
            version=str(number),
            description=self.description if description is None else description,
            described=self.description,
        )

    def unpublished(self) -> Definition:
        """The function's, from which this version was made."""
        return msgspec.structs.replace(self, version=LATEST, description=self.described, described="")


class Target(Struct, frozen=True, kw_only=True):
    """One immutable state of a function's code and configuration."""

    id: int
    uid: bytes
    name: str
    definition: Definition
    environment: dict[str, str]
    package: str


class Deployed(Struct, frozen=True, kw_only=True):
    """What a target is deployed for, as its row says."""

    uid: bytes
    name: str
    state: State
    reason: str
    reason_code: str
    revision_id: str
    modified_ms: int


_definition_encoder = msgspec.json.Encoder()
_definition_decoder = msgspec.json.Decoder(Definition)
_variables_decoder = msgspec.json.Decoder(dict[str, str])


class TargetRows:
    """Rows of `targets`; for use within a transaction, or on what one has found."""

    def __init__(self, secrets: Secrets, identity: Identity, architecture: str) -> None:
        self._secrets = secrets
        self.identity = identity
        self._architecture = architecture
        self.snapshot: Callable[[int], Snapshot] = lambda target: Snapshot(ready=False)
        """What is known of a target's snapshot."""

    def insert(
        self, c: sqlite3.Connection, function: int, uid: bytes, definition: Definition, environment: dict[str, str]
    ) -> int:
        sealed = self._secrets.seal(msgspec.json.encode(environment), uid)
        package = package_key(definition.zip_sha256, definition.runtime)
        encoded = _definition_encoder.encode(definition)
        cursor = c.execute(
            "INSERT INTO targets (function, definition, environment, zip, package) VALUES (?, ?, ?, ?, ?)",
            (function, encoded, sealed, definition.zip_sha256, package),
        )
        return cursor.lastrowid or 0

    def decode(self, uid: bytes, definition: bytes, environment: bytes) -> tuple[Definition, dict[str, str]]:
        return _definition_decoder.decode(definition), _variables_decoder.decode(self._secrets.open(environment, uid))

    def target(self, number: int, uid: bytes, name: str, definition: bytes, environment: bytes, package: str) -> Target:
        defined, variables = self.decode(uid, definition, environment)
        return Target(id=number, uid=uid, name=name, definition=defined, environment=variables, package=package)

    def configuration(self, of: Deployed, number: int, definition: bytes, environment: bytes) -> FunctionConfiguration:
        """`number`: the target's."""
        defined, variables = self.decode(of.uid, definition, environment)
        state, status = PUBLIC[of.state]
        failed_update = state is PublicState.ACTIVE and status is LastUpdateStatus.FAILED
        reason, code = of.reason, of.reason_code
        if state is PublicState.PENDING:
            reason, code = "The function is being created.", "Creating"
        elif state is PublicState.INACTIVE:
            reason, code = "The function is being deleted.", "Deleting"
        snapshot = Snapshot(ready=False)
        if defined.choice in (SnapshotChoice.ON, SnapshotChoice.AUTO):
            snapshot = self.snapshot(number)
        if state is PublicState.ACTIVE and not reason and snapshot.refused:
            reason, code = f"SnapStart is not possible: {snapshot.refused}.", "SnapStartNotPossible"
        return FunctionConfiguration(
            function_name=of.name,
            function_arn=self.identity.function_arn(of.name, "" if defined.version == LATEST else defined.version),
            version=defined.version,
            runtime=defined.runtime,
            handler=defined.handler,
            description=defined.description,
            timeout=defined.timeout,
            memory_size=defined.memory_size,
            ephemeral_storage=EphemeralStorage(size=defined.storage_size),
            environment=Environment(variables=variables),
            logging_config=defined.logging,
            snap_start=SnapStartResponse(
                apply_on=defined.snap_start.apply_on,
                optimization_status=SnapStartOptimizationStatus.ON
                if snapshot.ready
                else SnapStartOptimizationStatus.OFF,
            ),
            snapshot=defined.choice,
            code_size=defined.zip_size,
            code_sha256=base64_of(defined.zip_sha256),
            last_modified=lambda_time(of.modified_ms),
            revision_id=of.revision_id,
            architectures=[self._architecture],
            state=state,
            state_reason=reason if reason and not failed_update else UNSET,
            state_reason_code=code if code and not failed_update else UNSET,
            last_update_status=status,
            last_update_status_reason=reason if reason and failed_update else UNSET,
            last_update_status_reason_code=code if code and failed_update else UNSET,
        )


def check_room(c: sqlite3.Connection) -> None:
    """Whether there is room for a new function or version, in the transaction that makes it. Raises LimitExceeded."""
    if c.execute("SELECT count(*) FROM targets").fetchone()[0] >= quotas.TARGETS:
        raise errors.LimitExceeded(
            f"The node has {quotas.TARGETS} functions and published versions, as many as it keeps. Delete some that "
            "are not needed any more."
        )


def base64_of(hex_digest: str) -> str:
    return base64.b64encode(bytes.fromhex(hex_digest)).decode()


def lambda_time(milliseconds: int) -> str:
    """As Lambda writes LastModified: 2026-01-31T12:00:00.000+0000."""
    moment = datetime.fromtimestamp(milliseconds / 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{milliseconds % 1000:03d}+0000"
