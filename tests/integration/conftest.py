"""A gRPC server in this process, over the performers of tests.integration.performers."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from runtimed.api.table import Performers, bind
from runtimed.gateway.grpc.pb import functions_pb2
from runtimed.gateway.grpc.server import Server
from tests.integration.performers import performers
from tests.integration.stub import Stub, until

KEY = "5e1f"

T = TypeVar("T")


class Loop:
    """An event loop in a thread of its own, as the daemon has one in its process."""

    def __init__(self) -> None:
        self.loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def run(self, make: Callable[[], Awaitable[T]], timeout: float = 60.0) -> T:
        async def awaited() -> T:
            return await make()

        return asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(timeout)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()
        self.loop.close()


class Gateway:
    """A server with its performers, on a socket and on a port."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.socket = directory / "control.sock"
        state = directory / "state"
        state.mkdir()

        async def start() -> tuple[Performers, Server]:
            made = performers(state)
            server = Server(bind(made), socket=self.socket, address="127.0.0.1:0", key=KEY, tokens=made.keys.accepts)  # type: ignore[attr-defined]
            await server.start()
            return made, server

        self.performers, self.server = loop.run(start)
        self.address = f"unix:{self.socket}"
        self.tcp = f"127.0.0.1:{self.server.port}"

    def stop(self, grace: float = 0.0) -> None:
        self.loop.run(lambda: self.server.stop(grace))


@pytest.fixture(scope="module")
def loop() -> Iterator[Loop]:
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def gateway(loop: Loop, tmp_path: Path) -> Iterator[Gateway]:
    made = Gateway(loop, tmp_path)
    yield made
    made.stop()


@pytest.fixture
def stub(gateway: Gateway) -> Iterator[Stub]:
    made = Stub(gateway.address)
    yield made
    made.channel.close()


@pytest.fixture
def echo(stub: Stub) -> Stub:
    stub.create()
    until(lambda: stub.get().state == functions_pb2.STATE_ACTIVE)
    return stub
