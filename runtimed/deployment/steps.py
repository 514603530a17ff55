"""The steps of a rollout, each idempotent: prepare the package, grant a launch plan, teach the dispatcher. The last
one, to swap the route, is in routes.py."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from msgspec import Struct

from runtimed.deployment.archive import BadArchive
from runtimed.deployment.compile import compile_tree
from runtimed.deployment.receive import Receiver
from runtimed.deployment.targets import put_target, snapshot_mode
from runtimed.dispatch.control import Dispatcher
from runtimed.link.mirror import Refused
from runtimed.machines.pools import Pools
from runtimed.model import errors, wire
from runtimed.model.arn import Identity
from runtimed.model.runtime import ENTRYPOINT, is_custom, is_executed
from runtimed.sandbox.launcher import Failed, Launcher
from runtimed.sandbox.plans import launch_plan
from runtimed.store.functions import FunctionStore
from runtimed.store.packages import CodeStore
from runtimed.store.targets import Target

GRANT_SECONDS = 60  # for a runtime's first zygote to come up
RECOVER_SECONDS = 10  # for one that failed to come up again: the launcher starts another
PLAN_KEPT_SECONDS = 60  # a withdrawn target's plan outlives it, for invocations that still wait for an environment

log = logging.getLogger(__name__)


NO_RUNTIME = "InvalidRuntime"
NO_ENTRYPOINT = "FunctionError.InvalidEntryPoint"
NO_ROOM = "InsufficientCodeStorage"


class StepError(Exception):
    """A step cannot be done; the text and the code (StateReasonCode) are for the function's owner."""

    def __init__(self, reason: str, code: str) -> None:
        super().__init__(reason)
        self.code = code


def _check_entrypoint(tree: Path) -> None:
    """A custom runtime's package can be started."""
    path = tree / ENTRYPOINT
    if not path.is_file():
        why = f"has no file {ENTRYPOINT} at its top. Add one"
    elif not path.stat().st_mode & 0o100:
        why = f"has a {ENTRYPOINT} that is not executable. Run chmod +x on it"
    else:
        return
    raise StepError(f"Runtime.InvalidEntrypoint: The package {why}, and upload it again.", NO_ENTRYPOINT)


class Terms(Struct, frozen=True, kw_only=True):
    """Settings that go into plans and targets."""

    processes: int
    descriptors: int
    cpu: str
    waiting: int
    freeze_after_ms: int
    init_seconds: int
    snapshot: str


async def _nothing(uid: bytes) -> None:
    """For who has no pools."""


class Steps:
    """Runs them, and takes them back."""

    def __init__(
        self,
        *,
        functions: FunctionStore,
        code: CodeStore,
        receiver: Receiver,
        launcher: Launcher,
        dispatcher: Dispatcher,
        interpreter: Callable[[str], int | None],
        zygote: Callable[[str], str] = str,
        executable: Callable[[str], str] = lambda _: "",
        pools: Pools,
        terms: Terms,
        identity: Identity,
    ) -> None:
        """`interpreter`: the number of a runtime's interpreter, None when the node does not offer it; `zygote`: the
        name of the runtime whose zygotes its environments come from; `executable`: what they execute then."""
        self._functions = functions
        self._code = code
        self._receiver = receiver
        self._launcher = launcher
        self._dispatcher = dispatcher
        self._interpreter = interpreter
        self._zygote = zygote
        self._executable = executable
        self._pools = pools
        self._terms = terms
        self._identity = identity
        self.reserved: Callable[[bytes], int | None] = lambda uid: None
        """Concurrency, by a function's uid."""
        self.taught: Callable[[bytes], Awaitable[None]] = _nothing
        """Told of each function of which the dispatcher has learnt a new target, before any route leads there."""
        self.withdrawn: Callable[[Target], None] = lambda target: None
        """Told of each target that is withdrawn, while its row is still there."""
        self._going: dict[int, asyncio.TimerHandle] = {}
        """Plans of withdrawn targets, by number, until their time is over."""

    async def prepare(self, number: int) -> None:
        """Unpacks and compiles the package, unless that was done for another function or before a restart."""
        target = await self._functions.target(number)
        if self._code.has_tree(target.package):
            await self._receiver.drop_staged(target.definition.zip_sha256)
            return
        try:
            staged = await self._receiver.take_staged(target.definition.zip_sha256)
        except BadArchive as error:
            raise StepError(f"The package cannot be unpacked: {error}.", "InvalidZipFileException") from None
        except errors.CodeStorageExceeded as error:
            raise StepError(error.message, NO_ROOM) from None
        except FileNotFoundError:
            raise StepError(
                "The package is missing from the code store. Upload the code again.", "InternalError"
            ) from None
        try:
            interpreter = self._interpreter(target.definition.runtime)
            if is_custom(target.definition.runtime):
                _check_entrypoint(staged.path)
            elif interpreter is not None and not is_executed(target.definition.runtime):
                await compile_tree(self._launcher, staged.path, interpreter, target.definition.runtime)
            await self._receiver.place(staged, target.package)
        except BaseException:
            await self._receiver.discard(staged)
            raise

    async def grant(self, number: int) -> None:
        self._stay(number)
        target = await self._functions.target(number)
        runtime = target.definition.runtime
        if self._interpreter(runtime) is None:
            raise StepError(f"{runtime} is not on this node any more. Choose another runtime.", NO_RUNTIME)
        try:
            async with asyncio.timeout(GRANT_SECONDS):
                await self._put_plan(number, self.plan(target))
        except TimeoutError:
            raise StepError(f"{runtime} did not become ready in {GRANT_SECONDS} seconds.", NO_RUNTIME) from None
        except (Failed, Refused) as error:
            raise StepError(f"{runtime} cannot start environments: {error}.", NO_RUNTIME) from None

    async def _put_plan(self, number: int, plan: wire.PutPlan) -> None:
        """A zygote that fails once does not fail the rollout."""
        try:
            await self._launcher.put_plan(number, plan)
        except Failed:
            try:
                async with asyncio.timeout(RECOVER_SECONDS):
                    await self._launcher.plan_ready(number)
            except TimeoutError:
                pass
            else:
                return
            raise

    async def teach(self, number: int) -> None:
        target = await self._functions.target(number)
        try:
            await self._dispatcher.put(self.target(target), number, 1)
            await self.taught(target.uid)
        except Refused as error:
            raise StepError(f"The dispatcher refused the function: {error}.", "InternalError") from None

    async def withdraw(self, number: int) -> None:
        """The dispatcher lets environments finish; the plan goes a little later."""
        await self._dispatcher.delete_target(number)
        try:
            self.withdrawn(await self._functions.target(number))
        except KeyError:
            pass  # its row went with a former attempt
        self._stay(number)
        self._going[number] = asyncio.get_running_loop().call_later(PLAN_KEPT_SECONDS, self._go, number)

    def _go(self, number: int) -> None:
        del self._going[number]
        self._launcher.delete_plan_soon(number)

    def _stay(self, number: int) -> None:
        """A target that failed and is tried again has the number that was withdrawn."""
        timer = self._going.pop(number, None)
        if timer is not None:
            timer.cancel()

    # ---- messages --------------------------------------------------------------------------------------------

    def plan(self, target: Target) -> wire.PutPlan:
        definition = target.definition
        return launch_plan(
            runtime=self._zygote(definition.runtime),
            package=target.package,
            memory_mb=definition.memory_size,
            storage_mb=definition.storage_size,
            processes=self._terms.processes,
            descriptors=self._terms.descriptors,
            cpu=self._terms.cpu,
            grant=self._pools.grant(definition.memory_size),
            snapshot=snapshot_mode(definition, self._terms.snapshot),
        )

    def target(self, target: Target) -> wire.PutTarget:
        return put_target(
            target,
            self._identity,
            environments=self._pools.grant(target.definition.memory_size).environments,
            waiting=self._terms.waiting,
            keep_alive_ms=self._pools.keep_alive_ms,
            freeze_after_ms=self._terms.freeze_after_ms,
            init_seconds=self._terms.init_seconds,
            executable=self._executable(target.definition.runtime),
            snap_start=snapshot_mode(target.definition, self._terms.snapshot) is not wire.SnapshotMode.OFF,
            reserved=self.reserved(target.uid),
        )
