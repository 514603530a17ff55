"""The control plane: builds its parts, starts them in order, and stops them in the opposite one.

Started by the launcher as an unprivileged user in a root of its own, with the launcher's socket on descriptor 3 and
RUNTIMED_SETTINGS in its environment (`config.Boot`). It never forks. Invocations do not need it: after a crash it
is started again, reads its database, and tells launcher and dispatcher what should be; what they hold meanwhile
stays as it was.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import uvloop

from runtimed.api.table import Performers, bind
from runtimed.config import Boot, Settings, boot_decoder, build_id, cgroup_name
from runtimed.deployment.assembly import Deployment
from runtimed.deployment.receive import Receiver
from runtimed.deployment.retell import Reteller
from runtimed.deployment.spool import spooled
from runtimed.deployment.steps import Steps, Terms
from runtimed.deployment.upkeep import Sweeper, kept_up, try_again
from runtimed.dispatch.control import Dispatcher
from runtimed.dispatch.invocations import Invocations
from runtimed.gateway.grpc.server import Server
from runtimed.gateway.metrics import MetricsServer
from runtimed.gateway.rest.server import AT_ONCE, RestServer
from runtimed.invocation.concurrency import ConcurrencyKeeper
from runtimed.invocation.events import Events, node_rule
from runtimed.invocation.invoker import Invoker
from runtimed.invocation.keys import KeyRing
from runtimed.invocation.logs import LogReader
from runtimed.invocation.metrics import MetricsReader
from runtimed.invocation.node import NodeReader
from runtimed.invocation.pools import PoolKeeper, Rule
from runtimed.invocation.pressure import PressureKeeper
from runtimed.invocation.scaling import ScalingKeeper
from runtimed.invocation.scaling import Terms as ScalingTerms
from runtimed.invocation.statistics import StatisticsReader
from runtimed.link.mirror import Unconnected
from runtimed.machines.pools import Budget, KeepAlive, Pools
from runtimed.machines.scaling import Periods
from runtimed.model import wire
from runtimed.model.arn import Identity
from runtimed.sandbox.launcher import Failed, Launcher
from runtimed.sandbox.plans import snapshot
from runtimed.sandbox.runtimes import Candidate, Runtimes
from runtimed.store.concurrency import ConcurrencyStore
from runtimed.store.database import Database, StoreError
from runtimed.store.events import EventRules
from runtimed.store.facts import Facts
from runtimed.store.functions import FunctionStore
from runtimed.store.keys import KeyStore
from runtimed.store.ledger import Size
from runtimed.store.packages import CodeStore
from runtimed.store.scaling import ScalingStore
from runtimed.store.schema import MIGRATIONS
from runtimed.store.secrets import Secrets, control_key, load_secrets
from runtimed.telemetry.host import architecture
from runtimed.telemetry.log import begin_logging
from runtimed.telemetry.memory import MemoryReader

LAUNCHER_DESCRIPTOR = 3
STOP_MARGIN_SECONDS = 1.0  # of the drain time, for closing the database
EXIT_FAILED = 1
EXIT_CONFIGURATION = 78  # sysexits.h: EX_CONFIG: starting again would fail the same way

log = logging.getLogger(__name__)


class Daemon:
    """All parts of the control plane."""

    def __init__(self, boot: Boot, sock: socket.socket) -> None:
        settings = boot.settings
        self._boot = boot
        self._settings = settings
        self._state = Path(settings.node.state_dir)
        self._run = Path(settings.node.run_dir)
        self._identity = Identity(account=settings.node.account_id, region=settings.node.region)
        self._memory = MemoryReader(cgroup_name(settings.node.run_dir))
        self._pools = Pools(_budget(settings, self._memory.limit_bytes()))
        self._stopping = asyncio.Event()
        self._failed = False
        self._attachable: tuple[socket.socket, int] | None = None
        self._synchronised = False
        self._background: list[asyncio.Task[None]] = []
        self._metrics: MetricsServer | None = None
        self.dispatcher = Dispatcher(boot.build)
        self.launcher = Launcher(sock, boot.build, on_peer=self._peer, on_lost=self._lost)
        candidates = [Candidate(number, found.path) for number, found in enumerate(boot.interpreters)]
        self.runtimes = Runtimes(self.launcher, candidates)
        self.database = Database(self._state / "runtimed.db", MIGRATIONS)
        self.code = CodeStore(
            self._state,
            limit=Size(settings.limits.code_storage_mb << 20, settings.limits.code_files),
            reserve_bytes=settings.limits.disk_reserve_mb << 20,
        )
        self.invocations = Invocations(self._run / "dispatch.sock")

    async def run(self) -> int:
        """Until SIGTERM, or until the launcher is gone. Returns the exit status."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        try:
            server = await self._start()
        except Unconnected:
            log.error("the launcher went away during the start")
            await self._close()
            return EXIT_FAILED
        except BaseException:
            await self._close()
            raise
        await self._stopping.wait()
        await self._stop(server)
        return EXIT_FAILED if self._failed else 0

    # ---- start and stop --------------------------------------------------------------------------------------

    async def _start(self) -> Server:
        await self.launcher.greet()
        secrets = await self._secrets()
        self.functions = FunctionStore(self.database, secrets, self._identity, architecture())
        self.functions.rows.snapshot = lambda target: snapshot(self.launcher.plan_state(target))
        self.keys = KeyRing(
            KeyStore(self.database, secrets),
            self.dispatcher,
            region=self._identity.region,
            listen=self._settings.invoke.listen,
        )
        self.events = Events(
            self.dispatcher,
            EventRules(self.database),
            self.functions,
            self._identity,
            delay_ms=self._settings.events.retry_delay_ms,
        )
        self.code.clear_staging()
        limits = self._settings.limits
        self.concurrency = ConcurrencyKeeper(
            ConcurrencyStore(self.database),
            self.dispatcher,
            limit=limits.concurrency,
            least=limits.unreserved,
            tell=self._tell_function,
            tell_pools=self._tell_pools,
        )
        self.scaling = self._make_scaling()
        self.pool_keeper = self._make_pools()
        self.pressure = PressureKeeper(self.dispatcher, self._pools, self._memory, self._keep_alive)
        self.receiver = Receiver(self.code, uploads=limits.uploads, patience=limits.upload_seconds)
        self.steps = self._make_steps()
        self.reteller = Reteller(self.functions, self.dispatcher, self.steps)
        self.deployment = self._make_deployment()
        self.deployer = self.deployment.deployer
        self.deployer.changes.heard = self._qualifiers_changed
        sweeper = Sweeper(self.functions, self.code, self.receiver)
        self.receiver.reclaim = sweeper.reclaim
        self.steps.reserved = self.concurrency.reservation_of
        self.steps.taught = self.pool_keeper.tell_function
        self.steps.withdrawn = partial(sweeper.withdrawn, init_seconds=limits.init_seconds)
        self._background = [self._begin("the size of the code store", self.receiver.measure)]
        await self.runtimes.discover()
        await self.deployment.beginning.without_code()
        await self._tell_everything()
        server = self._make_server()
        await server.start()
        await self.deployer.recover()
        self.dispatcher.take_forwards(self._rest.take, AT_ONCE)
        self._serve_metrics()
        self._background += self._kept_up(sweeper)
        offered = ", ".join(runtime.name for runtime in self.runtimes.status() if not runtime.reason)
        log.info("%s serves %s; runtimes: %s", self._boot.build, self._run / "control.sock", offered or "none")
        return server

    def _kept_up(self, sweeper: Sweeper) -> list[asyncio.Task[None]]:
        return [
            self._begin("memory pressure", self.pressure.run),
            self._begin("removal of packages", sweeper.run),
            self._begin("pools", self.pool_keeper.run),
            self._begin("scaling", self.scaling.run),
            self._begin("keys", self.keys.run),
            self._begin("what serves", self._tell_serving),
            self._begin("functions that failed", partial(try_again, self.deployer)),
            self._begin("events", self.events.run),
        ]

    @staticmethod
    def _begin(what: str, run: Callable[[], Awaitable[None]]) -> asyncio.Task[None]:
        return asyncio.create_task(kept_up(what, run), name=what)

    async def _stop(self, server: Server) -> None:
        await server.set_serving(False)
        # Invocations under way finish; the launcher's patience ends a little later.
        grace = max(0.0, self._settings.node.drain_seconds - STOP_MARGIN_SECONDS)
        await asyncio.gather(server.stop(grace), self._rest.stop(grace))
        await self._close()

    async def _close(self) -> None:
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.stop)
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if hasattr(self, "deployer"):
            await self.deployer.stop()
        self.invocations.close()
        self.dispatcher.detach()
        self.launcher.close()
        self.database.close()
        self.code.clear_staging()

    async def _secrets(self) -> Secrets:
        facts = Facts(self.database)
        known = await facts.get("environment key id")
        secrets = load_secrets(self._state / "keys", expected=known)
        if known is None:
            await facts.put("environment key id", secrets.key_id)
        return secrets

    async def _tell_everything(self) -> None:
        """Plans to the launcher first: the dispatcher may redeem them as soon as it knows their targets."""
        limits = self._settings.limits
        limit = wire.PutLimit(
            concurrency=limits.concurrency,
            environments=self._pools.environments,
            stream_bytes=limits.stream_mb << 20,
            stream_burst=limits.stream_burst_kb << 10,
            stream_rate=limits.stream_rate_kb << 10,
            stall_ms=limits.stall_seconds * 1000,
            ration=limits.environment_ration,
            burst=self._settings.pools.burst,
        )
        self.dispatcher.preload(limit, 0, 1)
        self.dispatcher.preload(self._node_rule(), 0, 1)
        await self.keys.load()
        await self.events.load()
        await self.concurrency.load()
        await self.scaling.load()
        await self.deployment.beginning.preload()
        await self.launcher.synchronise()
        self._synchronised = True
        if self._attachable is not None:
            self._peer(*self._attachable)

    def _node_rule(self) -> wire.PutAsync:
        events = self._settings.events
        return node_rule(delay_ms=events.retry_delay_ms, chain=events.chain, dead=events.dead)

    def _make_steps(self) -> Steps:
        sandbox, pools = self._settings.sandbox, self._settings.pools
        return Steps(
            functions=self.functions,
            code=self.code,
            receiver=self.receiver,
            launcher=self.launcher,
            dispatcher=self.dispatcher,
            interpreter=self.runtimes.interpreter,
            zygote=self.runtimes.zygote,
            executable=self.runtimes.executable,
            pools=self._pools,
            terms=Terms(
                processes=sandbox.processes,
                descriptors=sandbox.descriptors,
                cpu=sandbox.cpu,
                waiting=pools.waiting,
                freeze_after_ms=pools.freeze_after_ms,
                init_seconds=self._settings.limits.init_seconds,
                snapshot=pools.snapshot,
            ),
            identity=self._identity,
        )

    def _make_deployment(self) -> Deployment:
        return Deployment(
            identity=self._identity,
            database=self.database,
            functions=self.functions,
            code=self.code,
            receiver=self.receiver,
            steps=self.steps,
            launcher=self.launcher,
            dispatcher=self.dispatcher,
            interpreter=self.runtimes.interpreter,
            pool=self.pool_keeper.pool,
            moving=self.concurrency.moving,
        )

    def _make_scaling(self) -> ScalingKeeper:
        settings = self._settings.pools
        periods = Periods(settings.scale_out_periods, settings.scale_in_periods)
        terms = ScalingTerms(period_ms=settings.scaling_period_ms, periods=periods)
        return ScalingKeeper(ScalingStore(self.database), self.concurrency, self.dispatcher, terms)

    def _make_pools(self) -> PoolKeeper:
        settings = self._settings.pools
        rule = Rule(
            keep_alive_ms=settings.keep_alive_seconds * 1000,
            observed=settings.keep_alive == "observed" and settings.keep_alive_seconds > 0,
            parked=settings.parked,
        )
        return PoolKeeper(self.dispatcher, self._pools, rule, self.concurrency.provision_of)

    def _make_server(self) -> Server:
        node = NodeReader(
            build=self._boot.build,
            identity=self._identity,
            state=self._state,
            concurrency=self._settings.limits.concurrency,
            unreserved=self.concurrency.unreserved,
            started_at=datetime.now(UTC),
            functions=self.functions,
            launcher=self.launcher,
            dispatcher=self.dispatcher,
            runtimes=self.runtimes,
            ledger=self.code.ledger,
        )
        performers = Performers(
            identity=self._identity,
            functions=self.deployment.reader,
            deployer=self.deployer,
            publisher=self.deployer,
            aliases=self.deployment.aliases,
            invoker=Invoker(self.invocations, self.deployment.reader.get),
            concurrency=self.concurrency,
            scaling=self.scaling,
            logs=LogReader(self._state / "logs", self.functions),
            keys=self.keys,
            queues=self.events,
            node=node,
            statistics=StatisticsReader(
                state=self._state, functions=self.functions, dispatcher=self.dispatcher, runtimes=self.runtimes
            ),
        )
        listen = self._settings.api.listen
        api = bind(performers)
        self._rest = RestServer(
            api, partial(spooled, self.receiver), patience=float(self._settings.limits.upload_seconds)
        )
        return Server(
            api,
            socket=self._run / "control.sock",
            socket_gid=self._boot.socket_gid,
            address=listen or None,
            key=control_key(self._state / "keys") if listen else "",
            tokens=self.keys.accepts,
        )

    def _serve_metrics(self) -> None:
        settings = self._settings.metrics
        if not settings.listen:
            return
        reader = MetricsReader(
            build=self._boot.build,
            functions=self.functions,
            dispatcher=self.dispatcher,
            runtimes=self.runtimes,
            most=settings.functions,
            pressure=self.pressure,
        )
        self._metrics = MetricsServer(settings.listen, reader.render)
        self._metrics.start()

    # ---- what happens ----------------------------------------------------------------------------------------

    def _peer(self, sock: socket.socket, epoch: int) -> None:
        """A new dispatcher. Before the launcher knows the plans it has to wait."""
        if self._synchronised:
            self._attachable = None
            self.dispatcher.attach(sock, epoch)
            return
        if self._attachable is not None:
            self._attachable[0].close()
        self._attachable = (sock, epoch)

    def _lost(self, reason: Exception | None) -> None:
        log.error("the launcher is gone%s", f": {reason}" if reason else "")
        self._failed = True
        self._stopping.set()

    async def _tell_serving(self) -> None:
        await self.dispatcher.when_ready()
        self.launcher.serving()

    async def _keep_alive(self, command: KeepAlive) -> None:
        """Tells every target the new time."""
        await self.reteller.tell()
        await self.pool_keeper.look()

    async def _qualifiers_changed(self, uid: bytes) -> None:
        """One of the function's versions or aliases was made, moved or deleted."""
        await self.concurrency.qualifiers_changed(uid)
        await self.scaling.qualifiers_changed()
        await self.events.forget_rules()

    async def _tell_pools(self, uid: bytes) -> None:
        await self.pool_keeper.tell_function(uid)

    async def _tell_function(self, uid: bytes) -> None:
        """Its targets, with what is reserved for it, and their pools."""
        await self.reteller.tell(uid)
        await self.pool_keeper.tell_function(uid)


def _budget(settings: Settings, memory_bytes: int) -> Budget:
    pools = settings.pools
    return Budget(
        memory_mb=(memory_bytes >> 20) * pools.memory_percent // 100,
        overcommit=pools.overcommit,
        concurrency=settings.limits.concurrency,
        launches_per_second=pools.launches_per_second,
        keep_alive_ms=pools.keep_alive_seconds * 1000,
        environments=pools.environments,
    )


async def _serve(boot: Boot) -> int:
    sock = socket.socket(fileno=LAUNCHER_DESCRIPTOR)
    return await Daemon(boot, sock).run()


def main() -> int:
    """The process."""
    boot = boot_decoder.decode(os.environ["RUNTIMED_SETTINGS"])
    begin_logging(boot.settings.node.log_level)
    os.umask(0o022)
    if boot.build != build_id():
        log.error("installed is %s, running is %s: restart runtimed", build_id(), boot.build)
        return EXIT_CONFIGURATION
    try:
        return uvloop.run(_serve(boot))
    except (StoreError, Failed, OSError) as error:
        log.error("%s", error)
        return EXIT_CONFIGURATION


if __name__ == "__main__":
    sys.exit(main())
