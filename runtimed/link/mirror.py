"""What the process at the other end must know, kept here and told whole to each of its incarnations.

The dispatcher and the launcher hold tables that the control plane owns: targets, routes, limits; plans, runtimes.
State is keyed and idempotent. `put` and `delete` change the copy here and, when somebody is connected, send the
change and wait until it is acknowledged: that is how a caller reads its own writes. On each new connection the
whole copy is sent between SYNC_BEGIN and SYNC_END; what is not in it the other side retires. While nobody is
connected, changes wait for the next synchronisation.

At most WINDOW messages are unacknowledged at a time. ACK is cumulative; NACK refuses one message, which then leaves the
copy again: it would be refused the next time too. What it should have replaced the other side still has, and so has the
copy.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TypeVar

from msgspec import Struct

from runtimed.link.connection import Connection
from runtimed.model import wire

WINDOW = 256
M = TypeVar("M", bound=wire.Message)


class Refused(Exception):
    """The other side does not take a message: which field, and why."""

    def __init__(self, nack: wire.Nack) -> None:
        super().__init__(f"{nack.field}: {nack.reason}" if nack.field else nack.reason or f"errno {nack.error}")
        self.error = nack.error
        self.field = nack.field


class Unconnected(Exception):
    """The other side is not there."""


class _Item(Struct):
    """One object of one table. `former`: what it replaced, until the other side has taken it."""

    message: wire.Message
    generation: int
    former: _Item | None = None
    refused: bool = False


class _Sent(Struct):
    """On the way: its number, who waits, and what it was."""

    seq: int
    done: asyncio.Future[None]


class Mirror:
    """`order`: the PUT types, referenced ones first; that is the order in which they are synchronised."""

    def __init__(self, order: tuple[type[wire.Message], ...]) -> None:
        self._order = order
        self._tables: dict[type[wire.Message], dict[int, _Item]] = {kind: {} for kind in order}
        self._connection: Connection | None = None
        self._seq = 0
        self._sent: deque[_Sent] = deque()
        self._room = asyncio.Semaphore(WINDOW)
        self._synced = asyncio.Event()
        self._ended = False

    @property
    def synced(self) -> bool:
        """Somebody is there and knows all."""
        return self._synced.is_set() and not self._ended

    def preload(self, message: wire.Message, object: int, generation: int) -> None:
        """Into the copy without waiting: before the first connection."""
        self._tables[type(message)][object] = _Item(message, generation)

    def get(self, kind: type[wire.Message], object: int) -> wire.Message | None:
        item = self._tables[kind].get(object)
        return item.message if item else None

    async def when_synced(self) -> None:
        """Until the other side was told everything, or there is none any more."""
        await self._synced.wait()

    async def put(self, message: wire.Message, object: int, generation: int) -> None:
        """Returns when the other side has it; raises Refused. Without a connection, waits for one; Unconnected when
        there will be none."""
        table = self._tables[type(message)]
        item = _Item(message, generation, table.get(object))
        table[object] = item
        try:
            await self._tell(message, object, generation)
        except Refused:
            _take_back(table, object, item)
            raise
        item.former = None

    async def delete(self, kind: type[wire.Message], message: wire.Message, object: int, generation: int) -> None:
        """`message`: the DEL that belongs to `kind`. Returns when the other side has forgotten the object."""
        self._tables[kind].pop(object, None)
        await self._tell(message, object, generation)

    def forget(self, kind: type[wire.Message], object: int) -> None:
        """Out of the copy, when the other side forgets it by itself."""
        self._tables[kind].pop(object, None)

    def items(self, kind: type[M]) -> dict[int, M]:
        """The copy of one table."""
        return {object: item.message for object, item in self._tables[kind].items() if isinstance(item.message, kind)}

    async def request(self, message: wire.Message, object: int) -> None:
        """A message that is no state: sent once, to whoever is there. Raises Refused and Unconnected."""
        await self._send(message, object, 0)

    async def _tell(self, message: wire.Message, object: int, generation: int) -> None:
        # A change made during a synchronisation may have come too late for it, so it is told after it in any case:
        # telling twice is harmless.
        while True:
            await self._synced.wait()
            try:
                await self._send(message, object, generation)
                return
            except Unconnected:
                if self._ended:
                    raise

    async def _send(self, message: wire.Message, object: int, generation: int) -> None:
        connection = self._connection
        await self._room.acquire()
        if connection is None or connection is not self._connection:
            self._room.release()
            raise Unconnected
        self._seq += 1
        sent = _Sent(self._seq, asyncio.get_running_loop().create_future())
        self._sent.append(sent)
        connection.send(message, seq=sent.seq, object=object, generation=generation)
        await sent.done

    def connect(self, connection: Connection) -> None:
        """A new incarnation of the other side: requests can be sent, tables after `synchronise`."""
        self.disconnected()
        self._connection = connection
        self._seq = 0  # an incarnation has seen none: a number above the window would be a breach

    async def synchronise(self) -> list[Refused]:
        """Tells everything, after HELLO. Raises Unconnected when the connection breaks meanwhile. What the other side
        refuses is dropped from the copy and returned, and what it replaced is told instead; the rest goes on."""
        refused: list[Refused] = []
        await self._send(wire.SyncBegin(), 0, 0)
        for kind in self._order:
            rows = list(self._tables[kind].items())
            while rows:
                sends = [self._send(item.message, object, item.generation) for object, item in rows]
                results = await asyncio.gather(*sends, return_exceptions=True)
                instead: list[tuple[int, _Item]] = []
                for (object, item), result in zip(rows, results, strict=True):
                    if isinstance(result, Refused):
                        refused.append(result)
                        former = _take_back(self._tables[kind], object, item)
                        instead += [] if former is None else [(object, former)]
                    elif isinstance(result, BaseException):
                        raise result
                rows = instead
        await self._send(wire.SyncEnd(), 0, 0)
        self._synced.set()
        return refused

    def acknowledged(self, ack: wire.Ack) -> None:
        while self._sent and self._sent[0].seq <= ack.acknowledged:
            self._settle(self._sent.popleft(), None)

    def refused(self, nack: wire.Nack) -> None:
        for sent in self._sent:
            if sent.seq == nack.refused:
                self._sent.remove(sent)
                self._settle(sent, Refused(nack))
                return

    def disconnected(self) -> None:
        """The connection is gone: whoever waits for an acknowledgement waits for the next synchronisation."""
        self._connection = None
        self._synced.clear()
        while self._sent:
            self._settle(self._sent.popleft(), Unconnected())

    def end(self) -> None:
        """Nobody will ever be there again: whoever waits, now or later, gets Unconnected."""
        self._ended = True
        self.disconnected()
        self._synced.set()

    def _settle(self, sent: _Sent, error: Exception | None) -> None:
        self._room.release()
        if sent.done.done():
            return
        if error is None:
            sent.done.set_result(None)
        else:
            sent.done.set_exception(error)


def _take_back(table: dict[int, _Item], object: int, item: _Item) -> _Item | None:
    """One that was refused, unless something newer has replaced it. What is there instead."""
    item.refused = True
    if table.get(object) is not item:
        return None
    former = item.former
    while former is not None and former.refused:
        former = former.former
    if former is None:
        del table[object]
    else:
        table[object] = former
    return former
