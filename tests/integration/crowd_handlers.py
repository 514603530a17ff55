"""The environments of crowd.py: what its callers ask for is done here, and entered in the ledger."""

from __future__ import annotations

import asyncio
import fcntl
import mmap
import os
import signal

from runtimed.model import wire
from tests.integration.crowd import ENDLESS, SLOW, STREAMING, Call, Ledger
from tests.integration.dispatch_stage import Environment, Link, Stage

ARENA = (6 << 20) + (64 << 10)
ARENA_LEAST = 256 << 10  # of a body that goes through one


def give_arena(launcher: Link, number: int) -> None:
    """As the launcher makes them."""
    fd = os.memfd_create("arena", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, ARENA)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    launcher.send(wire.Arena(size=ARENA), fds=(fd,), object=number)
    os.close(fd)


class Sharer(Environment):
    """An environment that takes large events from its arena, and puts large answers there."""

    memory: mmap.mmap | None = None
    offered = False
    """For the answer to the event under way."""
    ledger: Ledger

    def hear(self) -> tuple[wire.Invoke, bytes] | None:
        """What it is told next; an event whole."""
        header, message = self.next()
        if isinstance(message, wire.Start):
            self.send(wire.InitDone())
            return None
        if isinstance(message, wire.Attach):
            self._attach(message)
            return None
        assert isinstance(message, wire.Invoke), message
        self.offered = bool(header.flags & wire.HeaderFlags.ARENA) and self.memory is not None
        if self.offered and message.total > 0 and not message.body:
            assert self.memory is not None
            self.ledger.shared += 1
            return message, self.memory[: message.total]
        body = bytearray(message.body)
        while len(body) < message.total:
            body += self.expect(wire.Chunk)[1].data
        return message, bytes(body)

    def _attach(self, attach: wire.Attach) -> None:
        if self.memory is not None and (attach.size or not attach.fill):
            self.memory.close()
            self.memory = None
        if attach.size:
            self.expect(wire.Arena)
            fd = self.received.pop()
            self.memory = mmap.mmap(fd, attach.size)
            os.close(fd)
        if self.memory is not None and attach.fill:
            self._fill(attach.fill)
        if attach.size:
            self.send(wire.Attached())

    def _fill(self, size: int) -> None:
        assert self.memory is not None
        self.memory.madvise(23, 0, min(size, len(self.memory)))  # MADV_POPULATE_WRITE

    def answer(self, number: bytes, body: bytes) -> None:
        if not self.offered or len(body) <= ARENA_LEAST:
            self.result(number, body)
            return
        assert self.memory is not None
        self._fill(len(body))
        self.memory[: len(body)] = body
        self.ledger.shared += 1
        flags = wire.HeaderFlags.READY | wire.HeaderFlags.ARENA
        self.send(wire.Result(id=number, total=len(body)), flags=flags)

    def hang_up(self) -> None:
        super().hang_up()
        if self.memory is not None:
            self.memory.close()
        self.memory = None


class Handlers:
    """The environments that the dispatcher asks for, as many as it likes: the ledger's witnesses."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self.stage, self.ledger = stage, ledger
        self.environments: dict[int, Sharer] = {}
        self.held_up: dict[int, asyncio.Future[None]] = {}
        self.flows: set[asyncio.Task[None]] = set()
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(stage.launcher.sock, self._launcher)

    def close(self) -> None:
        self.loop.remove_reader(self.stage.launcher.sock)
        for environment in list(self.environments.values()):
            self._leave(environment)

    def _make(self, number: int) -> Sharer:
        return Sharer(self.stage.launcher, number, self.stage.directory, peak=10 << 20, frozen="0\n")

    def _launcher(self) -> None:
        header, message = self.stage.launcher.any()
        if isinstance(message, wire.Launch):
            environment = self._make(header.object)
            environment.ledger = self.ledger
            self.environments[environment.number] = environment
            self.loop.add_reader(environment.sock, self._event, environment)
        elif isinstance(message, wire.Arena):
            if header.object in self.environments and self.ledger.rng.random() < 0.9:
                give_arena(self.stage.launcher, header.object)
        elif isinstance(message, wire.End) and header.object in self.environments:
            if message.reason not in (wire.EndReason.SPINDOWN, wire.EndReason.RETIRED):
                self.ledger.complain(f"an honest environment was ended: {wire.EndReason(message.reason)}")
            self._leave(self.environments[header.object], signal.SIGKILL)

    def _leave(self, environment: Sharer, status: int = 1 << 8) -> None:
        del self.environments[environment.number]
        self.loop.remove_reader(environment.sock)
        if environment.number in self.held_up:
            self.held_up.pop(environment.number).set_exception(ConnectionResetError("ended"))
            self.loop.remove_writer(environment.sock)
        for fd in environment.received:
            os.close(fd)
        environment.received.clear()
        environment.exit(status)

    def _event(self, environment: Sharer) -> None:
        try:
            found = environment.hear()
        except (EOFError, ConnectionError):
            self.loop.remove_reader(environment.sock)  # its END comes
            return
        if found is None:
            return
        invoke, body = found
        call = self.ledger.take(body)
        if call.do == "die":
            self._leave(environment)
        elif call.do == "slow":
            self.loop.call_later(SLOW, self._answer, environment, invoke.id, call)
        else:
            self._answer(environment, invoke.id, call)

    def _answer(self, environment: Sharer, number: bytes, call: Call) -> None:
        if environment.number not in self.environments:
            return
        try:
            environment.print(f"call {call.number}\n" * (1 + call.number % 5))
            if call.do in STREAMING:
                flow = self.loop.create_task(self._flow(environment, number, call))
                self.flows.add(flow)
                flow.add_done_callback(self.flows.discard)
            elif call.do in ("parts", "cut"):
                self._answer_in_parts(environment, number, call)
            elif call.do == "error":
                environment.result(number, b'{"errorType":"Mine","errorMessage":"as asked"}', error="Mine")
            else:
                environment.answer(number, call.result)
        except ConnectionError as error:
            self.ledger.complain(f"call {call.number}: the dispatcher hung up on an honest environment: {error}")

    async def _put(self, environment: Sharer, message: wire.Message, flags: int = 0) -> None:
        """Waits for the dispatcher, which waits for the caller."""
        packet = wire.encode(message, flags=flags)
        while environment.number in self.environments:
            environment.sock.settimeout(0)
            try:
                environment.sock.send(packet)
                return
            except BlockingIOError:
                room = self.held_up[environment.number] = self.loop.create_future()
                self.loop.add_writer(environment.sock, self._go_on, environment)
                await room
        raise ConnectionResetError("ended")

    def _go_on(self, environment: Sharer) -> None:
        self.loop.remove_writer(environment.sock)
        self.held_up.pop(environment.number).set_result(None)

    async def _flow(self, environment: Sharer, number: bytes, call: Call) -> None:
        data = call.result if call.do != "endless" else b"e" * ENDLESS
        if call.do == "break":
            data = data[: len(data) // 2]
        # Few: each takes turns of everybody's loop.
        size = min(max(self.ledger.rng.choice((5_000, 20_000, 60_000)), len(data) // 20), 60_000)
        error = call.do == "break"
        end = wire.StreamEnd(
            error=int(error),
            error_type="Mine" if error else "",
            body=b'{"errorType":"Mine","errorMessage":"in the middle"}' if error else b"",
        )
        try:
            await self._put(environment, wire.StreamHead(id=number, content_type="application/json"))
            for at in range(0, len(data), size):
                await self._put(environment, wire.StreamChunk(data=data[at : at + size]))
            await self._put(environment, end, wire.HeaderFlags.READY)
        except ConnectionError as gone:
            if environment.number in self.environments:
                self.ledger.complain(f"call {call.number}: the dispatcher hung up in the middle of its parts: {gone}")

    def _answer_in_parts(self, environment: Sharer, number: bytes, call: Call) -> None:
        first, *rest = (call.result[at : at + 9000] for at in range(0, len(call.result), 9000))
        environment.send(wire.StreamHead(id=number, content_type="application/json", data=first))
        if call.do == "cut":
            self._leave(environment)
            return
        for part in rest:
            environment.send(wire.StreamChunk(data=part))
        environment.send(wire.StreamEnd(), flags=wire.HeaderFlags.READY)
