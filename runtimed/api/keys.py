"""Keys: make one, list them, end one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from runtimed.api.operation import operation
from runtimed.model.key import (
    CreatedKey,
    CreateKeyRequest,
    ListKeysRequest,
    ListKeysResponse,
    RevokeKeyRequest,
    RevokeKeyResponse,
)

if TYPE_CHECKING:
    from runtimed.model.key import Key


class KeyRing(Protocol):
    """Keeps the keys and tells the dispatcher of them (invocation/keys.py)."""

    async def create(self, description: str) -> CreatedKey:
        """Returns when it is valid. Raises LimitExceeded."""
        ...

    async def keys(self) -> list[Key]: ...

    async def revoke(self, key_id: str) -> None:
        """Returns when it is not valid any more. Raises ResourceNotFound."""
        ...


class Keys:
    """Operations on keys."""

    def __init__(self, ring: KeyRing) -> None:
        self._ring = ring

    @operation
    async def create_key(self, request: CreateKeyRequest) -> CreatedKey:
        return await self._ring.create(request.description)

    @operation(safe=True)
    async def list_keys(self, request: ListKeysRequest) -> ListKeysResponse:
        return ListKeysResponse(keys=await self._ring.keys())

    @operation
    async def revoke_key(self, request: RevokeKeyRequest) -> RevokeKeyResponse:
        await self._ring.revoke(request.key_id)
        return RevokeKeyResponse()
