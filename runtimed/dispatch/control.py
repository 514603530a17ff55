"""The dispatcher's client on the control connection: what exists, told; what happens, heard.

Each incarnation of the dispatcher comes as a new connection from the launcher (`attach`). After HELLO both ways and
the dispatcher's SNAPSHOT everything is told anew between SYNC_BEGIN and SYNC_END; only then does it serve. What it
reports are levels: the newest state of each environment, the demand of each target.
"""

from __future__ import annotations

import asyncio
import logging
import socket

from msgspec import Struct

from runtimed.dispatch.counters import CounterPage
from runtimed.dispatch.forwards import Forwards, Take
from runtimed.link.connection import Connection, close_all
from runtimed.link.levels import Levels
from runtimed.link.mirror import Mirror, Refused, Unconnected
from runtimed.model import wire
from runtimed.model.arn import LATEST

GENERATION_LAST = (1 << 64) - 1  # of a deletion: nothing that was put can be newer; ids are not used again
HELLO_SECONDS = 10

Put = (
    wire.PutLimit | wire.PutPressure | wire.PutTarget | wire.PutPool | wire.PutRoute | wire.PutPrincipal | wire.PutAsync
)

log = logging.getLogger(__name__)


class Census(Struct, frozen=True, kw_only=True):
    """Environments by what they do, over all targets."""

    starting: int = 0
    idle: int = 0
    busy: int = 0
    waiting: int = 0


class _Operation(Struct):
    """On queues: what was told of it so far."""

    done: asyncio.Future[wire.QueueDone]
    events: list[wire.QueueEvent] = []


class Dispatcher:
    """Outlives the dispatcher process: callers wait in `put_*` while it is restarted."""

    def __init__(self, build: str) -> None:
        self._build = build
        order = (
            wire.PutLimit, wire.PutPressure, wire.PutTarget, wire.PutPool, wire.PutRoute, wire.PutPrincipal,
            wire.PutAsync,
        )  # fmt: skip
        self._mirror = Mirror(order)
        self._connection: Connection | None = None
        self._hello: asyncio.Future[tuple[wire.Hello, list[int]]] | None = None
        self._attaching: asyncio.Task[None] | None = None
        self.demands: Levels[wire.Demand] = Levels()
        self.limits: Levels[wire.LimitState] = Levels()
        self.queues: Levels[wire.QueueState] = Levels()
        self._operations: dict[int, _Operation] = {}
        self._operation = 0
        self._page: CounterPage | None = None
        self._forwards = Forwards()
        self.restarts = -1  # incarnations seen, but for the first

    @property
    def ready(self) -> bool:
        """Connected, and told everything."""
        return self._mirror.synced

    @property
    def counters(self) -> CounterPage | None:
        """None before everything was told: only then do its counts go on where those of the one before stood."""
        return self._page if self.ready else None

    async def when_ready(self) -> None:
        """Until a dispatcher was told everything."""
        await self._mirror.when_synced()

    # ---- tables ----------------------------------------------------------------------------------------------

    def preload(self, message: Put, object: int, generation: int) -> None:
        """Before the first connection."""
        self._mirror.preload(message, object, generation)

    async def put(self, message: Put, object: int, generation: int) -> None:
        """Returns when invocations see it. Raises Refused."""
        await self._mirror.put(message, object, generation)

    async def put_pool(self, message: wire.PutPool, target: int) -> None:
        """Returns when the dispatcher keeps the target's environments so. Raises Refused and Unconnected."""
        await self._mirror.put(message, target, 1)
        if self._mirror.get(wire.PutTarget, target) is None:  # deleted meanwhile, and its pool with it
            self._mirror.forget(wire.PutPool, target)

    def pool(self, target: int) -> wire.PutPool | None:
        """What was put last."""
        found = self._mirror.get(wire.PutPool, target)
        return found if isinstance(found, wire.PutPool) else None

    def targets(self) -> dict[int, wire.PutTarget]:
        """Those that there are."""
        return self._mirror.items(wire.PutTarget)

    def target(self, target: int) -> wire.PutTarget | None:
        """What was put last."""
        found = self._mirror.get(wire.PutTarget, target)
        return found if isinstance(found, wire.PutTarget) else None

    def knows(self, target: int) -> bool:
        """Whether there is such a target."""
        return self.target(target) is not None

    def routes(self) -> dict[int, wire.PutRoute]:
        """Those that there are."""
        return self._mirror.items(wire.PutRoute)

    def route(self, route: int) -> wire.PutRoute | None:
        """What was put last."""
        found = self._mirror.get(wire.PutRoute, route)
        return found if isinstance(found, wire.PutRoute) else None

    def targets_of(self, uid: bytes, version: str) -> list[int]:
        """Of a function's version: one; two while another takes its place; none that is not rolled out."""
        return [
            number
            for number, target in self.targets().items()
            if target.function_uid == uid and (target.function_version or LATEST) == version
        ]

    def demands_of(self, uid: bytes, version: str) -> list[wire.Demand]:
        """Of the targets of a function's version, as far as they have any."""
        found = [self.demands.get(number) for number in self.targets_of(uid, version)]
        return [demand for demand in found if demand is not None]

    async def delete_target(self, target: int) -> None:
        """Its environments are ended as they become idle."""
        self._mirror.forget(wire.PutPool, target)
        await self._mirror.delete(wire.PutTarget, wire.DelTarget(), target, GENERATION_LAST)
        self.demands.forget(target)

    async def delete_route(self, route: int) -> None:
        await self._mirror.delete(wire.PutRoute, wire.DelRoute(), route, GENERATION_LAST)

    async def delete_principal(self, principal: int) -> None:
        """When it returns, nobody gets in with that key."""
        await self._mirror.delete(wire.PutPrincipal, wire.DelPrincipal(), principal, GENERATION_LAST)

    async def delete_async(self, rule: int) -> None:
        """A rule for events."""
        await self._mirror.delete(wire.PutAsync, wire.DelAsync(), rule, GENERATION_LAST)

    async def operate(self, message: wire.QueueOp) -> tuple[list[wire.QueueEvent], wire.QueueDone]:
        """One step of an operation on queues. Raises Refused, and Unconnected when nobody answers."""
        self._operation += 1
        number = self._operation
        operation = _Operation(asyncio.get_running_loop().create_future())
        self._operations[number] = operation
        try:
            await self._mirror.request(message, number)
            return operation.events, await operation.done
        finally:
            self._operations.pop(number, None)

    def census(self) -> Census:
        demands = self.demands.values()
        return Census(
            starting=sum(demand.starting for demand in demands),
            idle=sum(demand.idle for demand in demands),
            busy=sum(demand.busy for demand in demands),
            waiting=sum(demand.waiting for demand in demands),
        )

    def take_forwards(self, take: Take, at_once: int) -> None:
        """Requests that are no invocations go to `take` from now on, so many at a time."""
        self._forwards.open(take, at_once)
        if self._connection is not None and self.ready:
            self._forwards.tell(self._connection)

    # ---- connections -----------------------------------------------------------------------------------------

    def attach(self, sock: socket.socket, epoch: int) -> None:
        """A new connection from the launcher; it replaces the former one."""
        self.detach()
        self.restarts += 1
        self._hello = asyncio.get_running_loop().create_future()
        connection = Connection(sock, self._message, self._closed, epoch=epoch)
        self._connection = connection
        self._mirror.connect(connection)
        self._attaching = asyncio.create_task(self._synchronise(connection, self._hello))

    def detach(self) -> None:
        if self._attaching is not None:
            self._attaching.cancel()
            self._attaching = None
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._mirror.disconnected()
        self.demands = Levels()
        self.limits = Levels()
        self.queues = Levels()
        operations, self._operations = self._operations, {}
        for operation in operations.values():
            if not operation.done.done():
                operation.done.set_exception(Unconnected())
        if self._page is not None:
            self._page.close()
            self._page = None

    async def _synchronise(self, connection: Connection, hello: asyncio.Future[tuple[wire.Hello, list[int]]]) -> None:
        connection.send(wire.Hello(role=wire.Role.CONTROL, build=self._build))
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                greeting, descriptors = await hello
            if greeting.build != self._build:
                close_all(descriptors)
                log.error("the dispatcher is of build %s, not %s: restart runtimed", greeting.build, self._build)
                connection.close()
                return
            if descriptors:
                self._page = CounterPage(descriptors.pop(0))
                close_all(descriptors)
            for refused in await self._mirror.synchronise():
                log.error("the dispatcher refused an object: %s", refused)
            self._forwards.tell(connection)
        except TimeoutError:
            log.error("the dispatcher does not answer")
            connection.close()
        except (Unconnected, Refused) as error:
            log.warning("the dispatcher went away during synchronisation: %s", error)

    def _message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        match message:
            case wire.Ack():
                self._mirror.acknowledged(message)
            case wire.Nack():
                self._mirror.refused(message)
            case wire.Hello() if self._hello is not None and not self._hello.done():
                self._hello.set_result((message, list(descriptors)))
                descriptors.clear()
            case wire.Demand():
                # Of a target that is withdrawn too, while its last environments end: nobody would ever forget that.
                if self._mirror.get(wire.PutTarget, header.object) is not None:
                    self.demands.set(header.object, message)
            case wire.LimitState():
                self.limits.set(header.object, message)
            case wire.QueueState():
                self.queues.set(header.object, message)
            case wire.QueueEvent() if header.object in self._operations:
                self._operations[header.object].events.append(message)
            case wire.QueueDone() if header.object in self._operations:
                operation = self._operations.pop(header.object)
                if not operation.done.done():
                    operation.done.set_result(message)
            case wire.Forward() if self._connection is not None:
                self._forwards.take(self._connection, header.object, message, descriptors)
        close_all(descriptors)

    def _closed(self, reason: Exception | None) -> None:
        log.info("the dispatcher's connection ended%s", f": {reason}" if reason else "")
        self.detach()
