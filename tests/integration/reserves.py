"""Performers of concurrency, scaling and keys, in memory, for tests of what lies above them."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import UNSET
from msgspec.structs import replace

from runtimed.model import errors
from runtimed.model.concurrency import ProvisionedConcurrency, ProvisionedConcurrencyStatus
from runtimed.model.key import CreatedKey, Key
from runtimed.model.scaling import PutScheduledActionRequest, ScalableTarget, ScheduledAction, TargetTracking


class Reserves:
    """Any number of environments at once, all of them ready."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str], int] = {}

    async def reserve(self, name: str, executions: int) -> None:
        self._kept[name, ""] = executions

    async def reserved(self, name: str) -> int | None:
        return self._kept.get((name, ""))

    async def unreserve(self, name: str) -> None:
        self._kept.pop((name, ""), None)

    async def provision(self, name: str, qualifier: str, executions: int) -> ProvisionedConcurrency:
        self._kept[name, qualifier] = executions
        return (await self.provisioned(name))[qualifier]

    async def provisioned(self, name: str) -> dict[str, ProvisionedConcurrency]:
        return {
            qualifier: ProvisionedConcurrency(
                requested_provisioned_concurrent_executions=count,
                available_provisioned_concurrent_executions=count,
                allocated_provisioned_concurrent_executions=count,
                status=ProvisionedConcurrencyStatus.READY,
                last_modified="2026-01-31T12:00:00+0000",
            )
            for (kept, qualifier), count in sorted(self._kept.items())
            if kept == name and qualifier
        }

    async def provisioned_for(self, name: str, qualifier: str) -> ProvisionedConcurrency | None:
        return (await self.provisioned(name)).get(qualifier)

    async def unprovision(self, name: str, qualifier: str) -> bool:
        return self._kept.pop((name, qualifier), None) is not None


class Bounds:
    """Between what is scaled, and the names of what is planned; nothing is performed."""

    def __init__(self) -> None:
        self._targets: dict[tuple[str, str], ScalableTarget] = {}
        self._actions: dict[tuple[str, str, str], ScheduledAction] = {}

    def _target(self, name: str, qualifier: str) -> ScalableTarget:
        if (name, qualifier) not in self._targets:
            raise errors.ResourceNotFound(f"The provisioned concurrency of {name} is not scalable.")
        return self._targets[name, qualifier]

    async def register(self, name: str, qualifier: str, least: int | None, most: int | None) -> ScalableTarget:
        self._targets[name, qualifier] = ScalableTarget(
            function_name=name,
            qualifier=qualifier,
            min_capacity=least or 0,
            max_capacity=most or 0,
            capacity=least or 0,
        )
        return self._targets[name, qualifier]

    async def deregister(self, name: str, qualifier: str) -> None:
        self._target(name, qualifier)
        del self._targets[name, qualifier]

    async def targets(self, name: str) -> list[ScalableTarget]:
        return [target for (kept, _), target in sorted(self._targets.items()) if name in ("", kept)]

    async def track(self, name: str, qualifier: str, policy: TargetTracking) -> ScalableTarget:
        self._targets[name, qualifier] = replace(self._target(name, qualifier), policy=policy)
        return self._targets[name, qualifier]

    async def untrack(self, name: str, qualifier: str) -> None:
        self._targets[name, qualifier] = replace(self._target(name, qualifier), policy=UNSET)

    async def schedule(self, request: PutScheduledActionRequest) -> ScheduledAction:
        name, qualifier = request.function_name, request.qualifier
        self._target(name, qualifier)
        made = ScheduledAction(
            function_name=name,
            qualifier=qualifier,
            scheduled_action_name=request.scheduled_action_name,
            schedule=request.schedule,
            timezone=request.timezone or "UTC",
            start_time=request.start_time,
            end_time=request.end_time,
            min_capacity=request.min_capacity,
            max_capacity=request.max_capacity,
            next_time=datetime(2026, 1, 31, 12, tzinfo=UTC),
        )
        self._actions[name, qualifier, made.scheduled_action_name] = made
        return made

    async def actions(self, name: str, qualifier: str) -> list[ScheduledAction]:
        self._target(name, qualifier)
        return [action for key, action in sorted(self._actions.items()) if key[:2] == (name, qualifier)]

    async def unschedule(self, name: str, qualifier: str, action: str) -> None:
        if self._actions.pop((name, qualifier, action), None) is None:
            raise errors.ResourceNotFound(f"{name} has no scheduled action {action!r}.")


class Purse:
    """Keys in memory."""

    def __init__(self) -> None:
        self.tokens: dict[str, tuple[Key, str]] = {}

    async def create(self, description: str) -> CreatedKey:
        key_id, now = f"RT{len(self.tokens):018}", datetime.now(UTC)
        key = Key(key_id=key_id, description=description, created_at=now, last_modified=now)
        token = f"{key_id}.secret"
        self.tokens[key_id] = (key, token)
        return CreatedKey(key=key, secret="secret", token=token, endpoint="http://127.0.0.1:7402", region="us-east-1")

    async def keys(self) -> list[Key]:
        return [key for key, _ in self.tokens.values()]

    async def revoke(self, key_id: str) -> None:
        if self.tokens.pop(key_id, None) is None:
            raise errors.ResourceNotFound(f"There is no key {key_id}.")

    def accepts(self, token: bytes) -> bool:
        return token.decode() in {token for _, token in self.tokens.values()}
