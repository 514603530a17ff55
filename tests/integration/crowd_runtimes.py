"""The environments of crowd.py as runtimes of functions' own: each asks the Runtime API for its events over the
listener of its sandbox, and answers whole, with an error, or in parts."""

from __future__ import annotations

import asyncio
import base64
import socket

from runtimed.model import wire
from tests.integration.crowd import SLOW, STREAMING, Call, Ledger
from tests.integration.crowd_handlers import Handlers, Sharer
from tests.integration.dispatch_stage import Stage

API = "/2018-06-01/runtime/invocation"
ERROR_TYPE, ERROR_BODY = "Lambda-Runtime-Function-Error-Type", "Lambda-Runtime-Function-Error-Body"
FAILURE = b'{"errorType":"Mine","errorMessage":"as asked"}'


class RuntimeLedger(Ledger):
    """Nobody answers for ever: a runtime that does is refused in the middle, which is its end. Nor does anybody leave
    in the middle: a connection and an exit are told apart, and the caller hears of what is told first."""

    def call(self, *, large: bool = False, streamed: bool = False) -> Call:
        call = super().call(large=large, streamed=streamed)
        call.do = {"endless": "flow", "cut": "die"}.get(call.do, call.do)
        return call


class Runtimes(Handlers):
    """The program that is executed is a task here."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self.listeners: dict[int, socket.socket] = {}
        self.lives: dict[int, asyncio.Task[None]] = {}
        super().__init__(stage, ledger)

    def _make(self, number: int) -> Sharer:
        listener = self.listeners[number] = socket.create_server(("127.0.0.1", 0))
        return Sharer(self.stage.launcher, number, self.stage.directory, peak=10 << 20, frozen="0\n", listener=listener)

    def _event(self, environment: Sharer) -> None:
        """START: from the execve on the channel is closed."""
        self.loop.remove_reader(environment.sock)
        try:
            environment.expect(wire.Start)
        except (EOFError, ConnectionError):
            return  # its END comes
        environment.sock.close()
        self.lives[environment.number] = self.loop.create_task(self._live(environment))

    def _leave(self, environment: Sharer, status: int = 1 << 8) -> None:
        del self.environments[environment.number]
        if environment.sock.fileno() >= 0:
            self.loop.remove_reader(environment.sock)
        life = self.lives.pop(environment.number, None)
        if life is not None and life is not asyncio.current_task(self.loop):
            life.cancel()
        self.listeners.pop(environment.number).close()
        environment.exit(status)

    async def _live(self, environment: Sharer) -> None:
        address = self.listeners[environment.number].getsockname()
        reader, writer = await asyncio.open_connection(*address)
        call: Call | None = None
        try:
            while True:
                writer.write(f"GET {API}/next HTTP/1.1\r\nHost: h\r\n\r\n".encode())
                head, event = await self._read(reader)
                call = self.ledger.take(event)
                number = head.partition("Lambda-Runtime-Aws-Request-Id: ")[2].partition("\r\n")[0]
                environment.print(f"call {call.number}\n" * (1 + call.number % 5))
                if call.do == "slow":
                    await asyncio.sleep(SLOW)
                if not await self._answer_call(environment, writer, number, call):
                    return
                head, _ = await self._read(reader)
                if not head.startswith("HTTP/1.1 202 "):
                    self.ledger.complain(f"{call}: its runtime was answered {head[:100]!r}")
                call = None
        except (ConnectionError, asyncio.IncompleteReadError) as error:
            if environment.number in self.environments and call is not None:  # otherwise its END comes
                self.ledger.complain(f"{call}: the dispatcher hung up on an honest runtime: {error!r}")
        finally:
            writer.transport.abort()

    async def _read(self, reader: asyncio.StreamReader) -> tuple[str, bytes]:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        size = int(head.partition("Content-Length: ")[2].partition("\r")[0])
        return head, await reader.readexactly(size)

    async def _answer_call(
        self, environment: Sharer, writer: asyncio.StreamWriter, number: str, call: Call
    ) -> bool:  # fmt: skip
        """False: it has left instead."""
        if call.do == "die":
            self._leave(environment)
        elif call.do in (*STREAMING, "parts"):
            await self._stream(writer, number, call)
        elif call.do == "error":
            head = f"POST {API}/{number}/error HTTP/1.1\r\nHost: h\r\n{ERROR_TYPE}: Mine\r\n"
            writer.write(f"{head}Content-Length: {len(FAILURE)}\r\n\r\n".encode() + FAILURE)
        else:
            head = f"POST {API}/{number}/response HTTP/1.1\r\nHost: h\r\n"
            writer.write(f"{head}Content-Length: {len(call.result)}\r\n\r\n".encode() + call.result)
            await writer.drain()
        return call.do != "die"

    async def _stream(self, writer: asyncio.StreamWriter, number: str, call: Call) -> None:
        data = call.result if call.do != "break" else call.result[: len(call.result) // 2]
        size = self.ledger.rng.choice((5_000, 20_000, 60_000))
        writer.write(
            f"POST {API}/{number}/response HTTP/1.1\r\nHost: h\r\nLambda-Runtime-Function-Response-Mode: streaming\r\n"
            f"Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
            f"Trailer: {ERROR_TYPE}, {ERROR_BODY}\r\n\r\n".encode()
        )
        for at in range(0, len(data), size):
            part = data[at : at + size]
            writer.write(b"%x\r\n%s\r\n" % (len(part), part))
            await writer.drain()
        trailers = f"{ERROR_TYPE}: Mine\r\n{ERROR_BODY}: {base64.b64encode(FAILURE).decode()}\r\n"
        writer.write(f"0\r\n{trailers if call.do == 'break' else ''}\r\n".encode())
        await writer.drain()
