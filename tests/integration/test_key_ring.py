"""Keys in the real database, and what the dispatcher is told of them: over days, restarts and failures."""

from __future__ import annotations

import asyncio
import datetime as dt
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from runtimed.dispatch.control import Dispatcher
from runtimed.dispatch.principals import principal
from runtimed.invocation.keys import KeyRing
from runtimed.model import errors, quotas, wire
from runtimed.model.key import KeyId
from runtimed.store.database import Database, StoreError
from runtimed.store.keys import KeyStore, StoredKey
from runtimed.store.schema import MIGRATIONS
from runtimed.store.secrets import load_secrets
from tests.integration.peers import BUILD, Peer, pair, until

REGION = "us-east-1"


class Ring:
    """The ring with what is around it; the calendar is the test's."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.today = dt.date(2026, 1, 31)
        self.peers: list[Peer] = []

    async def start(self) -> None:
        self.database = Database(self.state / "runtimed.db", MIGRATIONS)
        self.store = KeyStore(self.database, load_secrets(self.state, expected=None))
        self.dispatcher = Dispatcher(BUILD)
        self.ring = KeyRing(
            self.store, self.dispatcher, region=REGION, listen="127.0.0.1:7402", today=lambda: self.today
        )
        await self.ring.load()

    async def connect(self) -> Peer:
        ours, theirs = pair()
        peer = Peer(theirs)
        self.peers.append(peer)
        self.dispatcher.attach(ours, 1)
        await until(lambda: self.dispatcher.ready)
        return peer

    def stop(self) -> None:
        self.dispatcher.detach()
        for peer in self.peers:
            peer.connection.close()
        self.database.close()


@pytest.fixture
async def ring(tmp_path: Path) -> AsyncIterator[Ring]:
    made = Ring(tmp_path)
    await made.start()
    yield made
    made.stop()


def told(peer: Peer) -> list[wire.Message]:
    return [message for message in peer.held.values() if isinstance(message, wire.PutPrincipal)]


async def test_a_key_is_told_before_its_caller_knows_it(ring: Ring) -> None:
    peer = await ring.connect()
    made = await ring.ring.create("build server")
    assert told(peer) == [principal(made.key.key_id, made.secret, REGION, ring.today)]
    assert made.token == f"{made.key.key_id}.{made.secret}"
    assert (made.endpoint, made.region) == ("http://127.0.0.1:7402", REGION)
    assert len(made.key.key_id) == 20
    assert await ring.ring.keys() == [made.key]
    assert ring.ring.accepts(made.token.encode())
    for wrong in (b"", made.secret.encode(), made.key.key_id.encode(), made.token.encode()[:-1]):
        assert not ring.ring.accepts(wrong)
    await ring.ring.revoke(made.key.key_id)
    assert (told(peer), await ring.ring.keys(), ring.ring.accepts(made.token.encode())) == ([], [], False)
    with pytest.raises(errors.ResourceNotFound, match="keys list"):
        await ring.ring.revoke(made.key.key_id)


async def test_ids_are_valid_and_differ(ring: Ring) -> None:
    await ring.connect()
    made = [await ring.ring.create("") for _ in range(50)]
    assert all(msgspec.convert(one.key.key_id, KeyId) for one in made)
    assert len({one.key.key_id for one in made} | {one.secret for one in made}) == 100


async def test_keys_are_told_anew_each_day_and_when_the_clock_jumps(ring: Ring) -> None:
    peer = await ring.connect()
    made = await ring.ring.create("")
    before = len(peer.heard)
    assert not await ring.ring.refresh()
    assert len(peer.heard) == before
    for day in (dt.date(2026, 2, 1), dt.date(2030, 1, 1), dt.date(2026, 2, 1)):
        ring.today = day
        assert await ring.ring.refresh()
        assert told(peer) == [principal(made.key.key_id, made.secret, REGION, day)]
    generations = [header.generation for header, message in peer.heard if isinstance(message, wire.PutPrincipal)]
    assert generations == sorted(set(generations)), "an older one would be ignored"


async def test_keys_outlive_the_control_plane_and_the_dispatcher(ring: Ring) -> None:
    peer = await ring.connect()
    kept, ended = [await ring.ring.create("") for _ in range(2)]
    newest = max(header.generation for header, _ in peer.heard)
    await ring.ring.revoke(ended.key.key_id)
    ring.stop()
    await ring.start()
    peer = await ring.connect()
    expected = [principal(kept.key.key_id, kept.secret, REGION, ring.today)]
    assert told(peer) == expected
    assert peer.kinds().index("PutPrincipal") < peer.kinds().index("SyncEnd")
    assert min(header.generation for header, message in peer.heard if isinstance(message, wire.PutPrincipal)) > newest
    assert ring.ring.accepts(kept.token.encode())
    assert not ring.ring.accepts(ended.token.encode())
    ring.dispatcher.detach()
    assert told(await ring.connect()) == expected


async def test_a_revocation_that_nobody_waits_for_is_carried_through(ring: Ring) -> None:
    peer = await ring.connect()
    made = await ring.ring.create("")
    revoking = asyncio.create_task(ring.ring.revoke(made.key.key_id))
    await asyncio.sleep(0)  # one turn: it has begun, and the database has not answered
    revoking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await revoking
    await until(lambda: not told(peer))
    assert not ring.ring.accepts(made.token.encode())


async def test_another_day_does_not_bring_back_what_is_revoked_meanwhile(
    ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = await ring.connect()
    made = await ring.ring.create("")
    read, go, renew = asyncio.Event(), asyncio.Event(), ring.store.renew

    async def held() -> list[StoredKey]:
        rows = await renew()
        read.set()
        await go.wait()
        return rows

    monkeypatch.setattr(ring.store, "renew", held)
    ring.today += dt.timedelta(days=1)
    refreshing = asyncio.create_task(ring.ring.refresh())
    await read.wait()
    revoking = asyncio.create_task(ring.ring.revoke(made.key.key_id))
    await asyncio.wait({revoking}, timeout=0.2)  # it must not get ahead; this is the time in which it could
    go.set()
    await asyncio.gather(refreshing, revoking)
    assert told(peer) == []


async def test_what_the_dispatcher_refuses_is_no_key(ring: Ring) -> None:
    peer = await ring.connect()
    peer.refuse = lambda message: "token" if isinstance(message, wire.PutPrincipal) else ""
    with pytest.raises(errors.ServiceUnavailable, match="token"):
        await ring.ring.create("")
    assert await ring.ring.keys() == []


async def test_there_is_a_limit(ring: Ring, monkeypatch: pytest.MonkeyPatch) -> None:
    await ring.connect()
    monkeypatch.setattr(quotas, "KEYS", 2)
    for _ in range(2):
        await ring.ring.create("")
    with pytest.raises(errors.LimitExceeded, match="at most 2"):
        await ring.ring.create("")


async def test_secrets_are_sealed_to_their_rows(ring: Ring) -> None:
    await ring.connect()
    one, two = [await ring.ring.create("") for _ in range(2)]
    ring.stop()
    path = ring.state / "runtimed.db"
    data = b"".join(file.read_bytes() for file in ring.state.glob("runtimed.db*"))
    assert one.key.key_id.encode() in data
    assert one.secret.encode() not in data
    with sqlite3.connect(path) as c:
        c.execute(
            "UPDATE keys SET secret = (SELECT secret FROM keys WHERE key_id = ?) WHERE key_id = ?",
            (one.key.key_id, two.key.key_id),
        )
    c.close()
    with pytest.raises(StoreError, match="changed on disk"):
        await ring.start()


async def test_a_database_without_keys_gets_their_table(tmp_path: Path) -> None:
    Database(tmp_path / "runtimed.db", MIGRATIONS[:1]).close()
    made = Ring(tmp_path)
    await made.start()
    assert await made.ring.keys() == []
    made.stop()
