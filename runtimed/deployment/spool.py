"""Something long that is on its way and must be whole before it can be read: kept on disk, without a name, in room that
is reserved as it grows. Whatever happens, nothing of it stays behind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import IO, TYPE_CHECKING

from runtimed.deployment.receive import UPLOAD_STEP, to_its_end

if TYPE_CHECKING:
    from runtimed.deployment.receive import Receiver


class Spool:
    """Written in order, then read by its descriptor."""

    def __init__(self, file: IO[bytes], claim: Callable[[int], Awaitable[None]]) -> None:
        self._file = file
        self._claim = claim
        self._room = 0
        self.size = 0

    async def write(self, piece: bytes) -> None:
        """Raises CodeStorageExceeded."""
        while self.size + len(piece) > self._room:
            await self._claim(UPLOAD_STEP)
            self._room += UPLOAD_STEP
        await to_its_end(self._file.write, piece)
        self.size += len(piece)

    def fileno(self) -> int:
        return self._file.fileno()


@asynccontextmanager
async def spooled(receiver: Receiver) -> AsyncIterator[Spool]:
    """A new one, gone afterwards."""
    async with receiver.room() as (file, claim):
        yield Spool(file, claim)
