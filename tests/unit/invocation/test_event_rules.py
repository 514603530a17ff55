"""Pausing a queue and configuring its retries at the same time: neither undoes the other."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from msgspec.structs import replace

from runtimed.store.database import Database
from runtimed.store.events import EventRules
from runtimed.store.schema import MIGRATIONS


@pytest_asyncio.fixture
async def rules(tmp_path: Path) -> AsyncIterator[EventRules]:
    database = Database(tmp_path / "runtimed.db", MIGRATIONS)
    query = (
        "INSERT INTO functions (uid, name, generation, revision_id, modified_ms, state, reason, reason_code) "
        "VALUES (?, 'f', 1, '', 0, '', '', '')"
    )
    await database.run(lambda c: c.execute(query, (uuid.uuid4().bytes,)))
    yield EventRules(database)
    database.close()


async def test_changes_at_once(rules: EventRules) -> None:
    for n in range(50):
        await rules.change("f", lambda rule: replace(rule, paused=False, retries=None), 0)
        await asyncio.gather(
            rules.change("f", lambda rule: replace(rule, paused=True), 1),
            rules.change("f", lambda rule, n=n: replace(rule, retries=n % 3), 1),  # type: ignore[misc]
        )
        found = await rules.find("f")
        assert (found.paused, found.retries) == (True, n % 3)


async def test_what_is_so_already_changes_nothing(rules: EventRules) -> None:
    first = await rules.change("f", lambda rule: replace(rule, paused=True), 1)
    assert (first.generation, first.modified_ms) == (1, 1)
    assert await rules.change("f", lambda rule: None, 2) == first
    changed = await rules.change("f", lambda rule: replace(rule, paused=False), 3)
    assert (changed.generation, changed.modified_ms, changed.paused) == (2, 3, False)
