"""What a dispatcher is told of its pools, by what it counted: a real page of counters, and the real protocol."""

from __future__ import annotations

import mmap
import os
import socket
import struct
from collections.abc import AsyncIterator

import pytest

from runtimed.dispatch.control import Dispatcher
from runtimed.dispatch.counters import HEAD, HISTOGRAMS, MAGIC, NODE, SLOT, VERSION
from runtimed.invocation.pools import OWN, PARKED_SHARE, PoolKeeper, Rule
from runtimed.machines.keep_alive import LONGEST, bin_of
from runtimed.machines.parking import INTERVALS, SLOW_INIT_US
from runtimed.machines.pools import Budget, Plenty, Pools, Shortage
from runtimed.model import wire
from tests.integration.peers import BUILD, Peer, pair, until

BUCKETS, SLOTS, SLOT_SIZE, SLOTS_OFFSET = 240, 8, 4096, 16384
IDLE_SIZE, IDLE_BINS, IDLE_OFFSET = 1152, 138, SLOTS_OFFSET + SLOTS * SLOT_SIZE
SIZE = IDLE_OFFSET + SLOTS * IDLE_SIZE
KEEP_ALIVE_MS = 600_000


class Page:
    """As native/dispatch/include/dispatch/counters.h lays it out, with fewer slots."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("counters", 0)
        os.ftruncate(self.descriptor, SIZE)
        self._map = mmap.mmap(self.descriptor, SIZE)
        HEAD.pack_into(
            self._map, 0, MAGIC, VERSION, SIZE, SLOTS, SLOT_SIZE, BUCKETS, len(NODE), len(HISTOGRAMS), len(SLOT),
            SLOTS_OFFSET, 0, SLOTS - 1, 1, 0, 1, IDLE_OFFSET, IDLE_SIZE, IDLE_BINS, 2,
        )  # fmt: skip

    def close(self) -> None:
        self._map.close()
        os.close(self.descriptor)

    def add(self, target: int, **counts: int) -> None:
        """To a target's counters; its slot has its number."""
        at = SLOTS_OFFSET + target * SLOT_SIZE
        struct.pack_into("<Q16s", self._map, at, target, bytes([target] * 16))
        for name, count in counts.items():
            self._increase("<Q", at + 32 + SLOT.index(name) * 8, count)

    def init_phase(self, target: int, us: int) -> None:
        """One that took so long."""
        bucket = us if us < 8 else 8 + (us.bit_length() - 4) * 8 + (us >> (us.bit_length() - 4)) - 8
        self._increase("<Q", SLOTS_OFFSET + target * SLOT_SIZE + 256 + BUCKETS * 8 + bucket * 8, 1)

    def gaps(self, target: int, gap_ms: float, count: int, *, first: bool = True) -> None:
        at = IDLE_OFFSET + target * IDLE_SIZE
        self._increase("<Q", at, count)
        self._increase("<I", at + 8 + (bin_of(gap_ms) + (0 if first else IDLE_BINS)) * 4, count)

    def _increase(self, kind: str, at: int, by: int) -> None:
        (before,) = struct.unpack_from(kind, self._map, at)
        struct.pack_into(kind, self._map, at, before + by)


class Counting(Peer):
    """A dispatcher with counters."""

    def __init__(self, sock: socket.socket, page: Page) -> None:
        super().__init__(sock)
        self._sock, self._page = sock, page

    def message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        if isinstance(message, wire.Hello):
            self.heard.append((header, message))
            packet = wire.encode(wire.Hello(role=self.role, build=BUILD), epoch=1)
            socket.send_fds(self._sock, [packet], [self._page.descriptor])
            return
        super().message(header, message, descriptors)


class Stage:
    """A node with room for 160 environments, whose functions are numbers."""

    def __init__(self) -> None:
        self.pools = Pools(
            Budget(memory_mb=320, overcommit=8, concurrency=1000, launches_per_second=1000, keep_alive_ms=KEEP_ALIVE_MS)
        )
        self.provisioned: dict[tuple[bytes, str], int] = {}
        self.dispatcher = Dispatcher(BUILD)
        rule = Rule(keep_alive_ms=KEEP_ALIVE_MS, observed=True, parked=16)
        self.keeper = PoolKeeper(
            self.dispatcher, self.pools, rule, lambda uid, version: self.provisioned.get((uid, version), 0)
        )
        self.pages: list[Page] = []
        self.peers: list[Counting] = []

    def _provisioned(self, uid: bytes, version: str) -> int:
        return self.provisioned.get((uid, version), 0)

    async def connect(self) -> None:
        """Another dispatcher, which begins to count."""
        ours, theirs = pair()
        self.pages.append(Page())
        self.peers.append(Counting(theirs, self.pages[-1]))
        self.dispatcher.attach(ours, 1)
        await until(lambda: self.dispatcher.ready)

    @property
    def page(self) -> Page:
        return self.pages[-1]

    async def serve(self, *targets: int) -> None:
        for target in targets:
            put = wire.PutTarget(function_uid=bytes([target] * 16), function_name=f"f{target}")
            await self.dispatcher.put(put, target, 1)

    async def serve_version(self, target: int, function: int, version: str) -> None:
        """A target of a function that has others."""
        put = wire.PutTarget(
            function_uid=bytes([function] * 16), function_name=f"f{function}", function_version=version
        )
        await self.dispatcher.put(put, target, 1)

    async def told(self, target: int) -> wire.PutPool:
        """After a look."""
        return (await self.all_told(target))[0]

    async def all_told(self, *targets: int) -> list[wire.PutPool]:
        """After one."""
        await self.keeper.look()
        found = [self.peers[-1].held[wire.PutPool, target] for target in targets]
        return [one for one in found if isinstance(one, wire.PutPool)]

    def close(self) -> None:
        self.dispatcher.detach()
        for peer in self.peers:
            peer.connection.close()
        for page in self.pages:
            page.close()


@pytest.fixture
async def stage() -> AsyncIterator[Stage]:
    made = Stage()
    await made.connect()
    yield made
    made.close()


async def test_as_many_are_parked_as_came_at_once_and_none_of_one_that_sleeps(stage: Stage) -> None:
    await stage.serve(1)
    assert (await stage.told(1)).parked == 0
    stage.page.add(1, calls=1, cold_starts=1)
    assert (await stage.told(1)).parked == 0, "any function's first call"
    stage.page.add(1, calls=9, cold_starts=5)
    assert (await stage.told(1)).parked == 5
    for _ in range(INTERVALS - 1):
        stage.page.add(1, calls=20)
        assert (await stage.told(1)).parked == 5
    stage.page.add(1, calls=20)
    assert (await stage.told(1)).parked == 0, "its invocations find environments now"
    stage.page.add(1, calls=200, cold_starts=100)
    assert (await stage.told(1)).parked == 16, "no more than the setting says"
    for _ in range(INTERVALS):
        found = await stage.told(1)
    assert found.parked == 0, "nobody called it for a minute"


async def test_one_is_parked_for_who_takes_long_to_start(stage: Stage) -> None:
    await stage.serve(1, 2)
    stage.page.init_phase(1, 2 * SLOW_INIT_US)
    stage.page.init_phase(2, SLOW_INIT_US // 4)
    for _ in range(2):
        stage.page.add(1, calls=1)
        stage.page.add(2, calls=1)
        found = await stage.all_told(1, 2)
    assert [one.parked for one in found] == [1, 0]


async def test_all_that_is_parked_is_bounded_by_memory(stage: Stage) -> None:
    targets = range(1, 7)
    await stage.serve(*targets)
    for _ in range(2):
        for target in targets:
            stage.page.add(target, calls=20, cold_starts=10 if target > 1 else 2)
        found = await stage.all_told(*targets)
    parked = [one.parked for one in found]
    assert sum(parked) == stage.pools.environments // PARKED_SHARE == 20
    assert min(parked) == 2
    assert max(parked) - min(parked[1:]) <= 1, "everybody gets the same of what is left"
    stage.pools.on(Shortage())
    assert [one.parked for one in await stage.all_told(*targets)] == [0] * 6
    stage.pools.on(Plenty())
    assert (await stage.told(1)).parked == 2


async def test_environments_are_kept_by_the_gaps_that_were_counted(stage: Stage) -> None:
    await stage.serve(1, 2)
    stage.page.add(1, calls=100, peak_kb=170 * 1024)
    stage.page.add(2, calls=100, peak_kb=170 * 1024)
    assert (await stage.told(1)).keep_alive_ms == OWN
    stage.page.gaps(1, 3_000, 60)
    stage.page.gaps(2, 1_800_000, 60)  # a timer, every half hour
    short, timer = await stage.all_told(1, 2)
    assert 3_000 < short.keep_alive_ms < KEEP_ALIVE_MS
    assert short.prewarm_end_ms == 0
    assert timer.keep_alive_ms < KEEP_ALIVE_MS * LONGEST
    assert timer.keep_alive_ms < timer.prewarm_ms < 1_800_000 < timer.prewarm_end_ms
    stage.pools.on(Shortage())
    timer = await stage.told(2)
    assert (timer.prewarm_ms, timer.prewarm_end_ms) == (0, 0)
    assert timer.keep_alive_ms <= KEEP_ALIVE_MS // 20


async def test_the_others_are_kept_by_gaps_of_their_own(stage: Stage) -> None:
    await stage.serve(1, 2)
    for target in (1, 2):
        stage.page.add(target, calls=100, peak_kb=170 * 1024)
        stage.page.gaps(target, 3_000, 60)
    before, _ = await stage.all_told(1, 2)
    assert before.keep_others_ms > 0, "what is known of nobody, as long as nothing is known of them"
    stage.page.gaps(1, 400_000, 60, first=False)
    stage.page.gaps(2, 3_000, 60, first=False)
    seldom, often = await stage.all_told(1, 2)
    assert seldom.keep_alive_ms == often.keep_alive_ms == before.keep_alive_ms, "that says nothing of the first"
    assert often.keep_others_ms <= before.keep_others_ms < 400_000 < seldom.keep_others_ms
    stage.pools.on(Shortage())
    assert (await stage.told(1)).keep_others_ms <= KEEP_ALIVE_MS // 20


async def test_what_a_new_dispatcher_goes_on_with_is_no_news(stage: Stage) -> None:
    """Its counters stand where those of the one before stood, and its gaps begin anew."""
    await stage.serve(1)
    stage.page.add(1, calls=100, cold_starts=1)
    stage.page.gaps(1, 3_000, 60)
    kept = (await stage.told(1)).keep_alive_ms
    await stage.connect()
    stage.page.add(1, calls=100, cold_starts=9)
    found = await stage.told(1)
    assert found.parked == 0
    assert found.keep_alive_ms == kept, "what was learnt stays"
    stage.page.add(1, calls=4, cold_starts=4)
    stage.page.gaps(1, 3_000, 1)
    stage.page.gaps(1, 1_800_000, 400)
    found = await stage.told(1)
    assert found.parked == 4
    assert found.prewarm_end_ms > 1_800_000, "one gap like those of before is one, and not fewer than none"


async def test_what_is_provisioned_is_told_with_it(stage: Stage) -> None:
    await stage.serve(1)
    stage.provisioned[bytes([1] * 16), "$LATEST"] = 7
    await stage.keeper.tell_function(bytes([1] * 16))
    assert (await stage.told(1)).provisioned == 7
    await stage.connect()
    assert (await stage.told(1)).provisioned == 7
    before = len(stage.peers[-1].heard)
    await stage.keeper.look()
    assert len(stage.peers[-1].heard) == before, "what has not changed is not told"


async def test_a_version_has_a_pool_of_its_own(stage: Stage) -> None:
    """What is called keeps nothing of a version that is not, and the other way round; a rollout loses nothing."""
    await stage.serve_version(1, 1, "$LATEST")
    await stage.serve_version(2, 1, "3")
    await stage.keeper.look()
    stage.page.add(1, calls=100, cold_starts=5)
    stage.page.gaps(1, 3_000, 60)
    latest, version = await stage.all_told(1, 2)
    assert latest.parked == 5 and latest.keep_alive_ms != OWN
    assert (version.parked, version.keep_alive_ms) == (0, OWN)
    stage.page.add(2, calls=100, cold_starts=2)
    stage.page.gaps(2, 1_800_000, 400)
    after, version = await stage.all_told(1, 2)
    assert after == latest
    assert version.parked == 2 and version.keep_alive_ms not in (OWN, latest.keep_alive_ms)
    await stage.dispatcher.delete_target(1)
    await stage.serve_version(4, 1, "$LATEST")
    assert await stage.all_told(4, 2) == [latest, version]
    await stage.dispatcher.delete_target(2)
    await stage.keeper.look()
    await stage.serve_version(5, 1, "3")
    assert (await stage.told(5)).keep_alive_ms == OWN, "nothing is known of what has gone"


async def test_provisions_are_their_versions(stage: Stage) -> None:
    await stage.serve_version(1, 1, "$LATEST")
    await stage.serve_version(2, 1, "1")
    stage.provisioned[bytes([1] * 16), "1"] = 3
    await stage.keeper.tell_function(bytes([1] * 16))
    assert [pool.provisioned for pool in await stage.all_told(1, 2)] == [0, 3]


async def test_a_thousand_versions_that_nobody_calls_are_nothing_to_know(stage: Stage) -> None:
    for number in range(1, 1001):
        await stage.serve_version(1000 + number, 1, str(number))
    await stage.serve_version(1, 1, "$LATEST")
    stage.page.add(1, calls=9, cold_starts=9)
    await stage.keeper.look()
    assert stage.keeper.known == 1
