"""Bounds on uploads under way: how many at a time, and how slow a sender may be.

An upload holds staging space and a place among a few, so one that stalls must not hold them for ever. A sender may be
silent for `patience` seconds at a time, and on the whole take `patience` seconds and what RATE_MIN allows for the bytes
that came: whoever sends a byte now and then is cut as well.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

from runtimed.model import errors

RATE_MIN = 32 * 1024
"""Bytes a second, on average, beyond the first seconds: 250 MB in a little over two hours."""


class Places:
    """So many uploads at a time; another one is refused at once, and told to come again."""

    def __init__(self, number: int) -> None:
        self._number = number
        self.taken = 0

    @contextmanager
    def one(self) -> Iterator[None]:
        """Raises TooManyRequests."""
        if self.taken >= self._number:
            raise errors.TooManyRequests(
                f"Code: {self._number} uploads are under way, which is all that the node takes at a time. Try again.",
                retry_after=1.0,
            )
        self.taken += 1
        try:
            yield
        finally:
            self.taken -= 1


async def paced(code: AsyncIterator[bytes], patience: float) -> AsyncIterator[bytes]:
    """The pieces, as long as they come in time. Raises RequestTimedOut."""
    began, received = time.monotonic(), 0
    pieces = aiter(code)
    while True:
        now = time.monotonic()
        left = min(patience, began + patience + received / RATE_MIN - now)
        try:
            async with asyncio.timeout(max(left, 0.0)):
                piece = await anext(pieces)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise errors.RequestTimedOut(
                f"Code: the upload was too slow: {received} bytes in {now - began + left:.0f} seconds. Send it again, "
                "from where the connection is better."
            ) from None
        received += len(piece)
        yield piece
