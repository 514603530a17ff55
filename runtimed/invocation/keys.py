"""Keys of callers: made, kept, told to the dispatcher, and ended.

The dispatcher knows digests and the signing keys of four days (dispatch/principals.py), so it is told anew when the
day changes; that is looked at every few minutes, since clocks jump and machines sleep. One change at a time: what is
told of a key that is being revoked must not come after its end. Both creation and revocation are carried through also
when the caller does not wait for them.
"""

from __future__ import annotations

import asyncio
import logging
import secrets as randomness
import string
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, date, datetime
from typing import Any, TypeVar

from runtimed.dispatch.control import Dispatcher
from runtimed.dispatch.principals import principal, token_digest
from runtimed.link.mirror import Refused
from runtimed.model import errors
from runtimed.model.key import (
    KEY_ID_HEAD,
    KEY_ID_TAIL_CHARACTERS,
    SECRET_CHARACTERS,
    CreatedKey,
    Key,
    bearer_token,
)
from runtimed.store.keys import KeyStore, StoredKey

LOOK_SECONDS = 120
"""Between two looks at the calendar."""

T = TypeVar("T")

log = logging.getLogger(__name__)


def utc_today() -> date:
    return datetime.now(UTC).date()


class KeyRing:
    """`load` before the dispatcher is told everything; `run` for as long as the node serves."""

    def __init__(
        self,
        store: KeyStore,
        dispatcher: Dispatcher,
        *,
        region: str,
        listen: str,
        today: Callable[[], date] = utc_today,
    ) -> None:
        """`listen`: the setting invoke.listen."""
        self._store = store
        self._dispatcher = dispatcher
        self._region = region
        self._endpoint = f"http://{listen}" if listen else ""
        self._today = today
        self._told: date | None = None
        self._tokens: dict[bytes, int] = {}
        self._changing = asyncio.Lock()
        self._tasks: set[asyncio.Task[Any]] = set()

    async def load(self) -> None:
        """Before the first connection of a dispatcher."""
        today = self._today()
        for key in await self._store.renew():
            self._admit(key)
            self._dispatcher.preload(self._principal(key, today), key.id, key.generation)
        self._told = today

    def accepts(self, token: bytes) -> bool:
        """Is it the bearer token of a key?"""
        # By its digest, which nobody can approach bit by bit: the time that this takes tells nothing.
        return token_digest(token) in self._tokens

    async def create(self, description: str) -> CreatedKey:
        return await self._carry_through(self._create(description))

    async def keys(self) -> list[Key]:
        return await self._store.keys()

    async def revoke(self, key_id: str) -> None:
        await self._carry_through(self._revoke(key_id))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self.refresh()
            except Exception:
                log.exception("keys could not be told the dispatcher for another day; trying again")

    async def refresh(self) -> bool:
        """Tells the dispatcher of all keys when the day is another than it was told. Did it?"""
        async with self._changing:
            today = self._today()
            if today == self._told:
                return False
            puts = [
                self._dispatcher.put(self._principal(key, today), key.id, key.generation)
                for key in await self._store.renew()
            ]
            for result in await asyncio.gather(*puts, return_exceptions=True):
                if isinstance(result, Refused):
                    log.error("the dispatcher refused a key: %s", result)
                elif isinstance(result, BaseException):
                    raise result
            self._told = today
            return True

    # ---- changes ---------------------------------------------------------------------------------------------

    async def _create(self, description: str) -> CreatedKey:
        key_id = KEY_ID_HEAD + _random(KEY_ID_TAIL_CHARACTERS, string.ascii_uppercase + string.digits)
        secret = _random(SECRET_CHARACTERS, string.ascii_letters + string.digits)
        async with self._changing:
            stored, key = await self._store.add(key_id, secret, description, time.time_ns() // 1_000_000)
            try:
                await self._dispatcher.put(self._principal(stored, self._today()), stored.id, stored.generation)
            except Refused as error:
                await self._store.remove(key_id)
                raise errors.ServiceUnavailable(f"The node does not take the key: {error}. Try again.") from None
            self._admit(stored)
        log.info("key %s was made", key_id)
        return CreatedKey(
            key=key,
            secret=secret,
            token=bearer_token(key_id, secret),
            endpoint=self._endpoint,
            region=self._region,
        )

    async def _revoke(self, key_id: str) -> None:
        async with self._changing:
            number = await self._store.remove(key_id)
            if number is None:
                raise errors.ResourceNotFound(
                    f"There is no key {key_id}. `runtimectl keys list` lists those there are."
                )
            self._tokens = {digest: owner for digest, owner in self._tokens.items() if owner != number}
            await self._dispatcher.delete_principal(number)
        log.info("key %s was revoked", key_id)

    async def _carry_through(self, change: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(change)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return await asyncio.shield(task)

    def _principal(self, key: StoredKey, today: date) -> Any:
        return principal(key.key_id, key.secret, self._region, today)

    def _admit(self, key: StoredKey) -> None:
        self._tokens[token_digest(bearer_token(key.key_id, key.secret))] = key.id


def _random(count: int, alphabet: str) -> str:
    return "".join(randomness.choice(alphabet) for _ in range(count))
