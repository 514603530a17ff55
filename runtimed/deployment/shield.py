"""Work that goes on when its caller goes away, or when the store cannot keep it at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

RETRY_SECONDS = 1.0  # before the store is tried again for something that must be kept

log = logging.getLogger(__name__)


class Shield:
    """Keeps what runs behind it from being forgotten."""

    def __init__(self) -> None:
        self._running: set[asyncio.Future[Any]] = set()

    async def run(self, work: Awaitable[T]) -> T:
        task = asyncio.ensure_future(work)
        self._running.add(task)
        task.add_done_callback(self._done)
        return await asyncio.shield(task)

    def _done(self, task: asyncio.Future[Any]) -> None:
        self._running.discard(task)
        if not task.cancelled():
            task.exception()  # seen: the caller may be gone


async def until_done(what: str, work: Callable[[], Awaitable[T]]) -> T:
    """Again and again, should the store be unable to keep it (a full disk). `what`: for the log."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("%s failed and will be repeated", what)
            await asyncio.sleep(RETRY_SECONDS)
