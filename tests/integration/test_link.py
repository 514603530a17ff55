"""Connections and mirrors over real sockets: order, descriptors, windows, refusals, and each new incarnation told
everything."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest

from runtimed.link.connection import UNSENT_HIGH, Connection
from runtimed.link.levels import Levels
from runtimed.link.mirror import WINDOW, Mirror, Refused, Unconnected
from runtimed.model import wire
from tests.integration.peers import Peer, pair, until

Got = list[tuple[wire.Header, wire.Message, list[int]]]


def listen(sock: socket.socket) -> tuple[Connection, Got, list[Exception | None]]:
    got: Got = []
    ends: list[Exception | None] = []
    return Connection(sock, lambda *packet: got.append(packet), ends.append, epoch=7), got, ends


async def test_more_than_the_socket_takes_arrives_in_order() -> None:
    ours, theirs = pair()
    sender, _, _ = listen(ours)
    count = 3 * UNSENT_HIGH // 60_000
    for number in range(count):
        sender.send(wire.Chunk(data=bytes(60_000)), object=number)
    waiting = asyncio.create_task(sender.drained())
    await asyncio.sleep(0)
    assert not waiting.done()
    receiver, got, _ = listen(theirs)
    await until(lambda: len(got) == count)
    await waiting
    assert [header.object for header, _, _ in got] == list(range(count))
    assert {header.epoch for header, _, _ in got} == {7}
    sender.close()
    receiver.close()


async def test_descriptors_arrive_and_do_not_leak_into_children() -> None:
    ours, theirs = pair()
    connection, got, _ = listen(theirs)
    read, write = os.pipe()
    socket.send_fds(ours, [wire.encode(wire.TaskStarted(), object=1)], [read, write])
    os.close(read)
    os.close(write)
    await until(lambda: got)
    [(_, _, descriptors)] = got
    os.write(descriptors[1], b"x")
    assert os.read(descriptors[0], 1) == b"x"
    for descriptor in descriptors:
        assert not os.get_inheritable(descriptor)
        os.close(descriptor)
    connection.close()
    ours.close()


async def test_the_peers_end_is_told_once() -> None:
    ours, theirs = pair()
    connection, _, ends = listen(ours)
    theirs.close()
    await until(lambda: ends)
    connection.send(wire.Ack())
    connection.close()
    await asyncio.sleep(0.01)
    assert ends == [None]


@pytest.mark.parametrize("packet", [b"short", bytes(40), wire.encode(wire.Ack()) + b"x", bytes(wire.MESSAGE_MAX + 1)])
async def test_a_malformed_packet_ends_the_connection(packet: bytes) -> None:
    ours, theirs = pair()
    connection, got, ends = listen(ours)
    read, write = os.pipe()
    socket.send_fds(theirs, [packet], [write])
    os.close(write)
    await until(lambda: ends)
    assert isinstance(ends[0], ValueError)
    assert got == []
    assert os.read(read, 1) == b"", "the descriptor that came along was closed"
    os.close(read)
    connection.close()
    theirs.close()


class Side:
    """A mirror and the peer that it is told to."""

    def __init__(self) -> None:
        self.mirror = Mirror((wire.PutLimit, wire.PutTarget, wire.PutRoute))
        self.connections: list[Connection] = []

    def connect(self) -> Peer:
        ours, theirs = pair()
        peer = Peer(theirs)
        connection = Connection(ours, self.message, lambda reason: self.mirror.disconnected())
        self.connections += [connection, peer.connection]
        self.mirror.connect(connection)
        return peer

    def message(self, header: wire.Header, message: wire.Message, descriptors: list[int]) -> None:
        if isinstance(message, wire.Ack):
            self.mirror.acknowledged(message)
        elif isinstance(message, wire.Nack):
            self.mirror.refused(message)

    def close(self) -> None:
        for connection in self.connections:
            connection.close()


async def test_a_put_returns_when_it_is_known() -> None:
    side = Side()
    peer = side.connect()
    await side.mirror.synchronise()
    peer.silent = True
    putting = asyncio.create_task(side.mirror.put(wire.PutLimit(concurrency=5), 0, 1))
    await until(lambda: peer.unanswered)
    assert not putting.done()
    peer.acknowledge(peer.heard[-1][0].seq)
    await putting
    side.close()


async def test_everything_is_told_anew_in_order_and_the_rest_is_swept() -> None:
    side = Side()
    side.mirror.preload(wire.PutRoute(name="f", target=1), 9, 1)
    side.mirror.preload(wire.PutTarget(function_name="f"), 1, 1)
    first = side.connect()
    first.held[wire.PutTarget, 77] = wire.PutTarget(function_name="of an earlier control plane")
    assert await side.mirror.synchronise() == []
    assert first.kinds() == ["SyncBegin", "PutTarget", "PutRoute", "SyncEnd"]
    assert first.objects(wire.PutTarget) == {1}
    await side.mirror.put(wire.PutTarget(function_name="g"), 2, 1)
    await side.mirror.delete(wire.PutRoute, wire.DelRoute(), 9, 5)
    first.connection.close()
    await until(lambda: not side.mirror.synced)
    second = side.connect()
    await side.mirror.synchronise()
    assert (second.objects(wire.PutTarget), second.objects(wire.PutRoute)) == ({1, 2}, set())
    side.close()


async def test_numbers_begin_anew_with_each_connection() -> None:
    """The other side counts from nothing: a number further than the window from it would break the protocol."""
    side = Side()
    first = side.connect()
    await side.mirror.synchronise()
    for generation in range(WINDOW + 1):
        await side.mirror.put(wire.PutLimit(concurrency=5), 0, generation)
    first.connection.close()
    await until(lambda: not side.mirror.synced)
    second = side.connect()
    await side.mirror.synchronise()
    assert [header.seq for header, _ in second.heard] == [1, 2, 3]
    side.close()


async def test_changes_wait_for_a_connection_and_survive_its_loss() -> None:
    side = Side()
    early = asyncio.create_task(side.mirror.put(wire.PutLimit(concurrency=1), 0, 1))
    first = side.connect()
    await side.mirror.synchronise()
    await early
    first.silent = True
    late = [
        asyncio.create_task(side.mirror.put(wire.PutTarget(function_name="late"), 3, 1)),
        asyncio.create_task(side.mirror.delete(wire.PutLimit, wire.DelTarget(), 0, 2)),
    ]
    await until(lambda: first.unanswered == 2)
    first.connection.close()
    await until(lambda: not side.mirror.synced)
    assert not any(task.done() for task in late)
    second = side.connect()
    await side.mirror.synchronise()
    await asyncio.gather(*late)
    assert second.objects(wire.PutTarget) == {3}
    assert second.objects(wire.PutLimit) == set()
    side.close()


async def test_a_change_during_synchronisation_is_not_lost() -> None:
    side = Side()
    side.mirror.preload(wire.PutTarget(function_name="f"), 1, 1)
    peer = side.connect()
    peer.silent = True
    synchronising = asyncio.create_task(side.mirror.synchronise())
    await until(lambda: peer.unanswered == 1)
    peer.silent = False
    peer.acknowledge(1)
    await asyncio.sleep(0)
    changes = [
        asyncio.create_task(side.mirror.put(wire.PutTarget(function_name="new"), 1, 2)),
        asyncio.create_task(side.mirror.put(wire.PutLimit(concurrency=3), 0, 1)),
    ]
    await synchronising
    await asyncio.gather(*changes)
    assert peer.held[wire.PutTarget, 1] == wire.PutTarget(function_name="new")
    assert peer.held[wire.PutLimit, 0] == wire.PutLimit(concurrency=3)
    side.close()


async def test_a_refusal_reaches_its_caller_and_is_not_repeated() -> None:
    side = Side()
    side.mirror.preload(wire.PutTarget(function_name="bad"), 1, 1)
    side.mirror.preload(wire.PutTarget(function_name="good"), 2, 1)
    peer = side.connect()
    peer.refuse = lambda m: "function_name" if isinstance(m, wire.PutTarget) and m.function_name == "bad" else ""
    [refused] = await side.mirror.synchronise()
    assert str(refused) == "function_name: not wanted"
    with pytest.raises(Refused):
        await side.mirror.put(wire.PutTarget(function_name="bad"), 3, 1)
    await side.mirror.put(wire.PutTarget(function_name="good"), 4, 1)
    assert peer.objects(wire.PutTarget) == {2, 4}
    side.mirror.disconnected()
    side.connect()
    assert await side.mirror.synchronise() == []
    side.close()


def refuse_bad(message: wire.Message) -> str:
    return "function_name" if isinstance(message, wire.PutTarget) and message.function_name.startswith("bad") else ""


async def test_what_was_to_be_replaced_by_what_is_refused_stays() -> None:
    """At this peer and in the copy: the next one is told of it, too. Whatever else is under way."""
    side = Side()
    first = side.connect()
    first.refuse = refuse_bad
    await side.mirror.synchronise()
    names = {1: ["old", "bad"], 2: ["old", "bad", "bad too"], 3: ["old", "bad", "good"], 4: ["old", "good", "bad"]}
    last = {1: "old", 2: "old", 3: "good", 4: "good"}
    puts = [
        side.mirror.put(wire.PutTarget(function_name=name), number, generation)
        for number, row in names.items()
        for generation, name in enumerate(row, 1)
    ]
    outcomes = await asyncio.gather(*puts, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes if outcome is not None] == [Refused] * 5
    with pytest.raises(Refused):
        await side.mirror.put(wire.PutTarget(function_name="bad"), 5, 1)
    assert {n: target.function_name for n, target in side.mirror.items(wire.PutTarget).items()} == last
    first.connection.close()
    await until(lambda: not side.mirror.synced)
    second = side.connect()
    assert await side.mirror.synchronise() == []
    assert second.held == {(wire.PutTarget, n): wire.PutTarget(function_name=name) for n, name in last.items()}
    side.close()


async def test_what_was_to_be_replaced_is_told_where_its_successor_is_refused() -> None:
    """The change came while nobody was connected."""
    side = Side()
    side.mirror.preload(wire.PutTarget(function_name="old"), 1, 1)
    waiting = asyncio.create_task(side.mirror.put(wire.PutTarget(function_name="bad"), 1, 2))
    await until(lambda: side.mirror.items(wire.PutTarget)[1].function_name == "bad")
    peer = side.connect()
    peer.refuse = refuse_bad
    assert len(await side.mirror.synchronise()) == 1
    with pytest.raises(Refused):
        await waiting
    assert peer.held == {(wire.PutTarget, 1): wire.PutTarget(function_name="old")}
    assert side.mirror.get(wire.PutTarget, 1) == wire.PutTarget(function_name="old")
    side.close()


async def test_the_window_bounds_what_is_unacknowledged() -> None:
    side = Side()
    peer = side.connect()
    await side.mirror.synchronise()
    peer.silent = True
    puts = [asyncio.create_task(side.mirror.put(wire.PutTarget(), n, 1)) for n in range(WINDOW + 50)]
    await until(lambda: peer.unanswered == WINDOW)
    await asyncio.sleep(0.01)
    assert peer.unanswered == WINDOW
    peer.acknowledge(peer.heard[-1][0].seq - 100)
    await until(lambda: peer.unanswered == 50)
    peer.acknowledge(peer.heard[-1][0].seq)
    await asyncio.gather(*puts)
    assert [header.object for header, message in peer.heard if isinstance(message, wire.PutTarget)] == list(
        range(WINDOW + 50)
    )
    side.close()


async def test_requests_do_not_outlive_their_connection() -> None:
    side = Side()
    with pytest.raises(Unconnected):
        await side.mirror.request(wire.Task(), 1)
    peer = side.connect()
    peer.silent = True
    asking = asyncio.create_task(side.mirror.request(wire.Task(), 1))
    await until(lambda: peer.unanswered)
    side.mirror.disconnected()
    with pytest.raises(Unconnected):
        await asking
    side.close()


async def test_levels_keep_the_newest_and_can_be_awaited() -> None:
    levels: Levels[int] = Levels()
    ready = asyncio.create_task(levels.when(1, lambda value: value > 2))
    await asyncio.sleep(0)
    for value in (1, 2):
        levels.set(1, value)
    await asyncio.sleep(0)
    assert not ready.done()
    levels.set(1, 3)
    assert await ready == 3
    assert await levels.when(1, lambda value: value == 3) == 3
    never = asyncio.create_task(levels.when(2, bool))
    await asyncio.sleep(0)
    levels.end(Unconnected())
    with pytest.raises(Unconnected):
        await never
    assert levels.get(1) is None
