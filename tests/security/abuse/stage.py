"""A node on which hostile functions run, looked at before and after each: what is the same, and what is left.

`Stage.suffer` deploys one file of functions/, lets it misbehave in turn with a no-op while a neighbour is called, and
compares the node before and after: the same daemons, no more processes, cgroups, loop devices or descriptors once the
function is deleted, and the daemons' memory within bounds. What is ended takes its time, so "after" is awaited.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pathlib
import re
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

from bench.node import Node, await_true, below, cgroups, loop_devices
from runtimed.client import Client
from runtimed.client.result import Result
from runtimed.model import errors
from tests.crash.census import by_kind, cpu_seconds, kind
from tests.neighbour import Latency, Neighbour

FUNCTIONS = pathlib.Path(__file__).resolve().parent / "functions"
ROLES = ("launcher", "control", "dispatch")
# What a daemon may have grown by one case: caches, arenas, log buffers.
GROWTH_KB = 24 * 1024
CALM = 0.35  # seconds of the no-op
PATIENCE = 120.0  # longer than any function's time-out
# What a clean end leaves to the next environment of the same function, and for some seconds after the function is gone:
# a shell with its anchor, the launcher's descriptors of it, images for /tmp. Looked at when the session ends.
KEPT = ("anchor ", "launcher", "loop devices")
FROZEN = 30.0  # seconds, for what takes a tenth of one
STILL = 1.5  # seconds; what comes back to the launcher's pools is let go of in steps of one second


class Census(msgspec.Struct, frozen=True):
    """What a node that is at rest consists of. Pools (shells, leaves, images) are refilled to the same size."""

    roles: dict[str, int]
    processes: dict[str, int]
    cgroups: int
    loops: int
    descriptors: dict[str, int]


class Seen(msgspec.Struct, frozen=True):
    """What callers of a hostile function were answered, and how long the neighbour took."""

    results: list[Result]
    alone: Latency
    beside: Latency

    @property
    def neighbour(self) -> tuple[Latency, Latency]:
        return self.alone, self.beside

    def values(self) -> list[Any]:
        """Of functions that must have succeeded."""
        return [result.value for result in self.results]

    def failed_with(self, kind: str, pattern: str) -> None:
        """All of them, in the shape of Lambda's error object."""
        for result in self.results:
            assert result.response.function_error == "Unhandled", result.payload[:300]
            error = json.loads(result.payload)
            assert error["errorType"] == kind, error
            assert re.search(pattern, error["errorMessage"]), error

    def timed_out(self, seconds: int = 1) -> None:
        self.failed_with("Sandbox.Timedout", rf"^RequestId: \S+ Error: Task timed out after {seconds}\.\d\d seconds$")

    def timed_out_or_out_of_memory(self, seconds: int = 1) -> None:
        """Whichever limit came first, for each of them."""
        pattern = rf"Task timed out after {seconds}\.\d\d seconds$|Runtime exited with error: signal: killed$"
        for result in self.results:
            error = json.loads(result.payload)
            assert error["errorType"] in ("Sandbox.Timedout", "Runtime.OutOfMemory"), error
            assert re.search(pattern, error["errorMessage"]), error

    def out_of_memory(self) -> None:
        self.failed_with("Runtime.OutOfMemory", r"^RequestId: \S+ Error: Runtime exited with error: signal: killed$")

    def exited(self, how: str) -> None:
        self.failed_with("Runtime.ExitError", rf"^RequestId: \S+ Error: Runtime exited with error: {how}$")


def resident_kb(pid: int) -> int:
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    raise ValueError(f"process {pid} has no memory of its own")


def in_leaves(pid: int, cgroup: str) -> int:
    """In how many directories below the node's own the process is; 0 when it has gone."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = pathlib.Path(f"/proc/{pid}/cgroup").read_text().splitlines()
        return sum(f"/{cgroup}/" in line for line in lines)
    return 0


class Stage:
    """One node, its neighbour function, and a hostile one at a time."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.client = Client(node.address, timeout=PATIENCE)
        self.neighbour = Neighbour(node)
        # Its connection to the dispatcher, made at its first call, is there at rest too.
        self.client.invoke(self.neighbour.name, {"numbers": [], "call": 0})
        self._numbers = 0
        self.resting = self.rest()
        # What is made once, at a first deployment and deletion, is no leak.
        name = self.deploy("processes")
        self.client.invoke(name, {"deed": "nothing"})
        self.client.delete_function(name)
        self.resting.descriptors["control"] = self.census().descriptors["control"]

    def close(self) -> None:
        self.neighbour.close()
        self.client.close()

    def deploy(self, source: str, *, memory: int = 128, timeout: int = 1, init: str = "") -> str:
        """`functions/<source>.py` under a name of its own. `init` goes before its first line."""
        self._numbers += 1
        name = f"hostile-{self._numbers}"
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            archive.writestr("app.py", init + (FUNCTIONS / f"{source}.py").read_text())
            archive.write(FUNCTIONS / "look.py", "look.py")
        self.client.deploy(
            name, out.getvalue(), runtime="python3.11", handler="app.handler", memory_size=memory, timeout=timeout
        )
        return name

    def call(self, name: str, event: dict[str, Any]) -> Result:
        """One invocation. Where the node could not begin it in time, which is its right on a machine as busy as a
        hostile function makes it, again, as a caller would."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return self.client.invoke(name, event, timeout=PATIENCE)
            except (errors.ServiceError, errors.TooManyRequests) as error:
                if not str(error).endswith(" in time.") or time.monotonic() > deadline:
                    raise

    def invoke(self, name: str, event: dict[str, Any], at_once: int = 1) -> list[Result]:
        with ThreadPoolExecutor(at_once) as pool:
            return list(pool.map(lambda _: self.call(name, event), range(at_once)))

    def look(self, name: str) -> dict[str, Any]:
        """What the next invocation of the function finds (functions/look.py). One that runs out of its second while
        the machine clears up after a hostile one takes its environment along: the next is looked at."""
        deadline = time.monotonic() + PATIENCE
        while True:
            result = self.call(name, {"deed": "look"})
            error = result.error()
            if error is None or error.error_type != "Sandbox.Timedout" or time.monotonic() > deadline:
                return result.value

    def together(self, name: str, count: int, deed: str = "hold") -> list[dict[str, Any]]:
        """What each of `count` environments of the function found that were there at the same time: all of them are
        started and idle then, so that nothing has to be started while the first ones misbehave already."""
        found: dict[str, dict[str, Any]] = {}

        def met() -> bool:
            results = self.invoke(name, {"deed": deed}, count)
            found.clear()
            found.update({one.value["environment"]: one.value for one in results if not one.failed})
            return len(found) == count

        await_true(met, PATIENCE, f"{count} environments at the same time")
        return list(found.values())

    def census(self) -> Census:
        processes = self.node.processes()
        roles = {role: pid for role, pid in self.node.roles().items() if role in ROLES}
        # Spares come and go with the launches of the last seconds, and each has a leaf; the rest of them is kept, too.
        spares = [p.pid for p in processes if p.name == "spare"]
        processes = [p for p in processes if p.name != "spare"]
        watched = dict(roles)
        watched |= {f"zygote {p.pid}": p.pid for p in processes if kind(p, self.node.launcher.pid) == "zygote"}
        descriptors = {}
        for role, pid in watched.items():
            with contextlib.suppress(FileNotFoundError):
                descriptors[role] = len(os.listdir(f"/proc/{pid}/fd"))
        leaves = sum(path.parent.name == self.node.cgroup for top in cgroups(self.node.cgroup) for path in below(top))
        leaves -= sum(in_leaves(pid, self.node.cgroup) for pid in spares)
        names = Counter(f"{p.name} {p.command.split(' --')[0]}" for p in processes)
        return Census(roles, dict(names), leaves, len(loop_devices(self.node.directory)), descriptors)

    def rest(self) -> Census:
        """The census of a node that has come to rest: the same for a while."""
        last, since = self.census(), time.monotonic()
        deadline = since + PATIENCE
        while time.monotonic() < deadline:
            time.sleep(0.1)
            now = self.census()
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > STILL:
                return now
        raise TimeoutError(f"the node does not come to rest: {last}")

    def memory(self) -> dict[str, int]:
        """The daemons' resident memory, in KB."""
        return {role: resident_kb(pid) for role, pid in self.node.roles().items() if role in ROLES}

    def suffer(
        self,
        source: str,
        event: dict[str, Any],
        *,
        rounds: int = 2,
        at_once: int = 1,
        clean: Callable[[dict[str, Any]], None] | None = None,
        then: Callable[[str], object] | None = None,
        **settings: Any,
    ) -> Seen:
        """One case. `clean` looks at what the next invocation of the same function finds; `then` is called
        with the function's name instead of that invocation. `at_once`: in as many environments, which are all there
        before any of them misbehaves."""
        memory = self.memory()
        name = self.deploy(source, **settings)
        results: list[Result] = []
        try:
            alone, beside = self.neighbour.compare(
                lambda: time.sleep(CALM),
                lambda: results.extend(self.invoke(name, event, at_once)),
                rounds,
                prepare=(lambda: self.together(name, at_once)) if at_once > 1 else lambda: None,
            )
            if then is not None:
                then(name)
            else:
                (clean or spotless)(self.look(name))
            grown = {role: size - memory[role] for role, size in self.memory().items()}
        finally:
            self.client.delete_function(name)
        self.settle()
        assert max(grown.values()) < GROWTH_KB, f"a daemon's memory grew: {grown} KB"
        return Seen(results, alone, beside)

    def stands_still(self) -> None:
        """What functions left running does not get the processor any more: frozen long before FROZEN is over."""
        last: dict[int, float] = {}
        since = time.monotonic()

        def still() -> bool:
            nonlocal last, since
            now = {}
            for pid in by_kind(self.node)["environment"]:
                with contextlib.suppress(OSError):  # it has ended meanwhile
                    now[pid] = cpu_seconds(pid)
            if now != last:
                last, since = now, time.monotonic()
            return time.monotonic() - since > STILL

        await_true(still, FROZEN, "environments that stand still")

    def settle(self, spare: tuple[str, ...] = KEPT) -> None:
        """Waits until the node holds no more than when it was at rest, but for what its names begin with `spare`."""
        over: dict[str, tuple[object, object]] = {}

        def same() -> bool:
            found = excess(self.resting, self.census())
            over.clear()
            over.update({name: counts for name, counts in found.items() if not name.startswith(spare)})
            return not over

        try:
            await_true(same, PATIENCE, "the node as it was")
        except TimeoutError as error:
            error.add_note(f"more than at rest (then, now): {over}")
            raise


def excess(resting: Census, now: Census) -> dict[str, tuple[object, object]]:
    """What there is more of than there was; other daemons than there were."""
    found: dict[str, tuple[object, object]] = {}
    if now.roles != resting.roles:
        found["daemons"] = (resting.roles, now.roles)
    for then, later in ((resting.processes, now.processes), (resting.descriptors, now.descriptors)):
        found |= {name: (then.get(name, 0), count) for name, count in later.items() if count > then.get(name, 0)}
    if now.cgroups > resting.cgroups:
        found["cgroups"] = (resting.cgroups, now.cgroups)
    if now.loops > resting.loops:
        found["loop devices"] = (resting.loops, now.loops)
    return found


def spotless(found: dict[str, Any]) -> None:
    """What a function finds in an environment in which nothing has happened yet."""
    assert found["tmp"] == []
    assert len(found["processes"]) == 1
    assert found["threads"] == 1
    assert found["descriptors"] <= 5


def kernel_complaints() -> list[str]:
    """Lines of the kernel's log that must not appear, however a function behaves."""
    text = pathlib.Path("/dev/kmsg")
    # A general protection fault with an instruction pointer is a process' own.
    bad = re.compile(
        r"\bBUG\b|WARNING:|hung_task|blocked for more than|soft lockup|rcu.*stall|general protection(?! fault ip:)|Oops"
    )
    fd = os.open(text, os.O_RDONLY | os.O_NONBLOCK)
    found = []
    try:
        while True:
            try:
                record = os.read(fd, 8192).decode(errors="replace")
            except BlockingIOError:
                return found
            except BrokenPipeError:  # overwritten while we read: go on with what is there
                continue
            if bad.search(record):
                found.append(record.strip())
    finally:
        os.close(fd)
