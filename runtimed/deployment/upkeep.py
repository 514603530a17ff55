"""What goes on in the background, until the control plane ends: functions that begin anew, and packages that nothing
refers to any more. daemon.py begins these tasks and others of their kind by `kept_up`: nobody waits for their end, and
what they look after must not be left alone because the disk was full for a moment."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from runtimed.deployment.deployer import Deployer
from runtimed.deployment.receive import Receiver
from runtimed.deployment.targets import init_limit
from runtimed.store.functions import FunctionStore
from runtimed.store.packages import CodeStore
from runtimed.store.targets import Target

LOOK_SECONDS = 5.0
SWEEP_SECONDS = 60.0
SWEEP_BATCH = 16
LAUNCH_SECONDS = 60.0  # until a launch is given up, and slack
KEPT_SECONDS = 3600.0  # of packages whose target is not known any more: beyond `longest_use` of the slowest function

PAUSE_SECONDS = 5.0  # before a task that failed begins again

log = logging.getLogger(__name__)


async def kept_up(what: str, run: Callable[[], Awaitable[None]], pause: float = PAUSE_SECONDS) -> None:
    """Until `run` returns, or this is cancelled. `what`: for the log; `pause`: seconds between two beginnings."""
    while True:
        try:
            return await run()
        except Exception:
            log.exception("%s: failed, and begins again in %g s", what, pause)
        await asyncio.sleep(pause)


async def try_again(deployer: Deployer) -> None:
    """Lets functions that failed begin anew, until cancelled."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        await deployer.try_again(time.monotonic())


class Sweeper:
    """Removes packages that nothing refers to any more, once no environment can run from them.

    How long that takes is known of a target that was withdrawn (`withdrawn`); of what a former control plane left it
    is KEPT_SECONDS from when it was first seen. Uploaded archives nobody runs from: they go at once when room is short.
    """

    def __init__(
        self,
        functions: FunctionStore,
        code: CodeStore,
        receiver: Receiver,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._functions = functions
        self._code = code
        self._receiver = receiver
        self._clock = clock
        self._due: dict[str, float] = {}

    def withdrawn(self, target: Target, init_seconds: int) -> None:
        """No route leads to it any more; its row goes next."""
        due = self._clock() + longest_use(target.definition.timeout, init_limit(target.definition, init_seconds))
        for name in (target.package, target.definition.zip_sha256):
            self._due[name] = max(due, self._due.get(name, 0.0))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                await self.sweep()
            except OSError as error:
                log.warning("unreferenced packages could not be removed: %s", error)
            await asyncio.sleep(SWEEP_SECONDS)

    async def reclaim(self) -> int:
        """Room is short: everything that may go. How many packages went."""
        try:
            return await self.sweep(short=True)
        except OSError as error:
            log.warning("unreferenced packages could not be removed: %s", error)
            return 0

    async def sweep(self, *, short: bool = False) -> int:
        """One round; how many packages went."""
        await self._receiver.measured()
        removed = 0
        while some := await self._sweep_some(short):
            removed += some
        return removed

    async def _sweep_some(self, short: bool) -> int:
        """SWEEP_BATCH at most: deployments wait while the lock is held."""
        async with self._receiver.lock:
            zips, trees = await self._functions.packages_in_use()
            have_zips, have_trees = await asyncio.to_thread(self._code.contents)
            now = self._clock()
            held = {name: self._due.get(name) for name in have_zips | have_trees}
            idle = (have_zips - zips) | (have_trees - trees)
            self._due = {
                name: now + KEPT_SECONDS if due is None else due
                for name, due in held.items()
                if name in idle or (due is not None and due > now)  # noted before its row went
            }
            going = [name for name in idle if self._due[name] <= now or (short and name in have_zips)][:SWEEP_BATCH]
            for name in going:
                await asyncio.to_thread(self._code.remove_zip if name in have_zips else self._code.remove_tree, name)
                del self._due[name]
            return len(going)


def longest_use(timeout: int, init_seconds: int) -> float:
    """Seconds after its withdrawal in which an environment of a target may still run: an invocation waits for an init
    and a time-out, is launched, is initialised twice, the second time under its own time-out, and runs."""
    return 2.0 * init_seconds + 3.0 * timeout + LAUNCH_SECONDS
