"""The control plane's own parts put together as in daemon.py, in one process, with peers for launcher and
dispatcher."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from typing import Any

from runtimed.deployment.assembly import Deployment
from runtimed.deployment.receive import Receiver
from runtimed.deployment.steps import Steps, Terms
from runtimed.dispatch.control import Dispatcher
from runtimed.machines.pools import Budget, Pools
from runtimed.model import wire
from runtimed.model.arn import LATEST, Identity
from runtimed.model.function import CreateFunctionRequest, FunctionConfiguration, UpdateFunctionCodeRequest
from runtimed.sandbox.launcher import Launcher
from runtimed.store.database import Database
from runtimed.store.functions import FunctionStore
from runtimed.store.ledger import Size
from runtimed.store.packages import CodeStore
from runtimed.store.schema import MIGRATIONS
from runtimed.store.secrets import load_secrets
from tests.integration.peers import BUILD, LauncherPeer, Peer, pair, until
from tests.integration.zips import build, plain

IDENTITY = Identity()
BUDGET = Budget(memory_mb=1000, overcommit=1.0, concurrency=100, launches_per_second=50, keep_alive_ms=1000)
TERMS = Terms(processes=64, descriptors=64, cpu="weight", waiting=9, freeze_after_ms=0, init_seconds=10, snapshot="off")


async def pieces(data: bytes, size: int = 1000) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


class Stage:
    """`start` may be called again after `stop`: the state directory is what stays."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.runtimes = {"python3.11": 0, "python3.12": 1}
        self.storage_bytes = 1 << 30
        self.storage_files = 10_000
        self.patience = 30.0

    async def start(self) -> None:
        (self.state / "keys").mkdir(parents=True, exist_ok=True)
        ours, theirs = pair()
        self.launcher_peer = LauncherPeer(theirs)
        self.lost: list[Exception | None] = []
        self.launcher = Launcher(ours, BUILD, on_peer=lambda sock, epoch: None, on_lost=self.lost.append)
        self.dispatcher = Dispatcher(BUILD)
        self.database = Database(self.state / "runtimed.db", MIGRATIONS)
        secrets = load_secrets(self.state / "keys", expected=None)
        self.functions = FunctionStore(self.database, secrets, IDENTITY, "x86_64")
        self.code = CodeStore(self.state, limit=Size(self.storage_bytes, self.storage_files))
        self.code.clear_staging()
        self.receiver = Receiver(self.code, uploads=4, patience=self.patience)
        await self.receiver.measure()
        self.pools = Pools(BUDGET)
        self.steps = Steps(
            functions=self.functions,
            code=self.code,
            receiver=self.receiver,
            launcher=self.launcher,
            dispatcher=self.dispatcher,
            interpreter=self.runtimes.get,
            pools=self.pools,
            terms=TERMS,
            identity=IDENTITY,
        )
        deployment = Deployment(
            identity=IDENTITY,
            database=self.database,
            functions=self.functions,
            code=self.code,
            receiver=self.receiver,
            steps=self.steps,
            launcher=self.launcher,
            dispatcher=self.dispatcher,
            interpreter=self.runtimes.get,
            pool=lambda target: wire.PutPool(),
            moving=lambda name, alias, version: nullcontext(),
        )
        self.versions, self.aliases = deployment.versions, deployment.aliases
        self.deployer, self.routes = deployment.deployer, deployment.routes
        await self.launcher.greet()
        await deployment.beginning.without_code()
        await deployment.beginning.preload()
        await self.launcher.synchronise()
        self.dispatch_peer = self.new_dispatcher()
        await until(lambda: self.dispatcher.ready)

    def new_dispatcher(self) -> Peer:
        ours, theirs = pair()
        peer = Peer(theirs)
        self.dispatcher.attach(ours, 1)
        return peer

    async def stop(self) -> None:
        await self.deployer.stop()
        self.dispatcher.detach()
        self.launcher.close()
        self.database.close()
        self.launcher_peer.connection.close()
        self.dispatch_peer.connection.close()

    # ---- what tests do ---------------------------------------------------------------------------------------

    async def create(self, name: str = "f", package: bytes | None = None, **more: object) -> FunctionConfiguration:
        request = CreateFunctionRequest(  # type: ignore[arg-type]
            **{"function_name": name, "runtime": "python3.11", "handler": "app.handler", **more}
        )
        return await self.deployer.create(request, pieces(build(plain()) if package is None else package))

    async def update(self, name: str, package: bytes, **more: Any) -> FunctionConfiguration:
        return await self.deployer.update_code(UpdateFunctionCodeRequest(function_name=name, **more), pieces(package))

    async def shown(self, name: str = "f") -> FunctionConfiguration:
        found = await self.functions.get(name)
        assert found is not None
        return found

    async def settled(self, name: str = "f") -> FunctionConfiguration:
        async with asyncio.timeout(60):
            await self.deployer.settle()
        return await self.shown(name)

    def routed(self) -> dict[str, int]:
        """Function name, with a qualifier that is not $LATEST, to target, as the dispatcher has it."""
        routes = [m for m in self.dispatch_peer.held.values() if isinstance(m, wire.PutRoute)]
        return {f"{m.name}:{m.qualifier}".removesuffix(f":{LATEST}"): m.target for m in routes}

    def targets(self) -> set[int]:
        return self.dispatch_peer.objects(wire.PutTarget)

    def staging(self) -> list[Path]:
        return list(self.code.staging.rglob("*"))


@asynccontextmanager
async def staged(state: Path) -> AsyncIterator[Stage]:
    stage = Stage(state)
    await stage.start()
    try:
        yield stage
    finally:
        await stage.stop()


def unconnected() -> socket.socket:
    """A socket whose peer is gone."""
    ours, theirs = pair()
    theirs.close()
    return ours
