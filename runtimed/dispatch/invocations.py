"""Invokes functions over RUN/dispatch.sock: the rules stand in native/dispatch/include/dispatch/transport.h.

One connection carries all calls; answers come in any order. It is opened by the first call that needs it. When it
breaks, the calls under way are lost (`Lost`: nobody knows whether they ran), and the next call opens a new one.
While the dispatcher is restarted its listener stays open: calls wait for it.
"""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

from msgspec import Struct

from runtimed.link.connection import Connection, close_all
from runtimed.model import wire

PART = 65536  # of a body in one message
CALLS_MAX = 4000  # unanswered on one connection; the dispatcher refuses above 4,096


class Lost(Exception):
    """The dispatcher cannot be reached, or went away with the call."""


class Reply(Struct, frozen=True):
    """An ANSWER and its whole body."""

    answer: wire.Answer
    body: bytes


class _Call(Struct):
    done: asyncio.Future[Reply]
    answer: wire.Answer | None = None
    body: bytearray = bytearray()


class Invocations:
    """The invoker's end of the invoke socket."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: Connection | None = None
        self._connecting = asyncio.Lock()
        self._calls: dict[int, _Call] = {}
        self._numbers = 0
        self._room = asyncio.Semaphore(CALLS_MAX)

    async def call(
        self,
        name: str,
        qualifier: str,
        payload: bytes,
        *,
        flags: int = 0,
        trace: str = "",
        client_context: bytes = b"",
        tenant: str = "",
        event_id: str = "",
    ) -> Reply:
        """One invocation. Cancelling the caller releases the call; the environment goes on. Raises Lost."""
        async with self._room:
            connection = await self._connected()
            self._numbers += 1
            number = self._numbers
            call = _Call(asyncio.get_running_loop().create_future())
            self._calls[number] = call
            head = wire.Call(
                flags=flags,
                name=name,
                qualifier=qualifier,
                trace=trace,
                client_context=client_context,
                tenant=tenant,
                event_id=event_id,
                total=len(payload),
                body=payload[:PART],
            )
            try:
                connection.send(head, object=number)
                for at in range(PART, len(payload), PART):
                    await connection.drained()
                    connection.send(wire.CallChunk(data=payload[at : at + PART]), object=number)
                return await call.done
            except asyncio.CancelledError:
                connection.send(wire.Cancel(), object=number)
                raise
            finally:
                self._calls.pop(number, None)

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._closed(None)

    async def _connected(self) -> Connection:
        async with self._connecting:
            if self._connection is None:
                self._connection = await self._connect()
            return self._connection

    async def _connect(self) -> Connection:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            raise Lost(f"{self._path}: {error.strerror}") from None
        return Connection(sock, self._message, self._closed)

    def _message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        close_all(descriptors)
        call = self._calls.get(header.object)
        if call is None:
            return  # cancelled meanwhile: numbers are not used again
        if isinstance(message, wire.Answer):
            call.answer, call.body = message, bytearray(message.body)
        elif isinstance(message, wire.AnswerChunk):
            call.body += message.data
        answer = call.answer
        if answer is not None and len(call.body) >= answer.total and not call.done.done():
            call.done.set_result(Reply(answer, bytes(call.body)))

    def _closed(self, reason: Exception | None) -> None:
        self._connection = None
        calls, self._calls = self._calls, {}
        for call in calls.values():
            if not call.done.done():
                call.done.set_exception(Lost(str(reason) if reason else "the dispatcher closed the connection"))
