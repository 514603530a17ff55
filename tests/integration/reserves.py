"""Performers of concurrency and keys, in memory, for tests of what lies above them."""

from __future__ import annotations

from datetime import UTC, datetime

from runtimed.model import errors
from runtimed.model.concurrency import ProvisionedConcurrency, ProvisionedConcurrencyStatus
from runtimed.model.key import CreatedKey, Key


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

    async def unprovision(self, name: str, qualifier: str) -> bool:
        return self._kept.pop((name, qualifier), None) is not None


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
