"""Rules of asynchronous invocation in the real database: pausing and configuring at once, qualifiers, and what a
database of before there were qualifiers becomes."""

from __future__ import annotations

import asyncio
import sqlite3
import uuid
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from msgspec.structs import replace

from runtimed.model import errors
from runtimed.store.database import Database
from runtimed.store.events import PAUSE, EventRule, EventRules
from runtimed.store.schema import MIGRATIONS

BEFORE = next(number for number, step in enumerate(MIGRATIONS) if any("qualified_rules" in sql for sql in step))
FUNCTION = (
    "INSERT INTO functions (uid, name, generation, revision_id, modified_ms, state, reason, reason_code) "
    "VALUES (?, ?, 1, '', 0, '', '', '')"
)
ALIAS = (
    "INSERT INTO aliases (function, name, version, weight, description, revision_id, generation, modified_ms) "
    "SELECT id, ?, '$LATEST', 0, '', '', 1, 0 FROM functions WHERE name = 'f'"
)


@pytest_asyncio.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(tmp_path / "runtimed.db", MIGRATIONS)
    await made.run(lambda c: c.execute(FUNCTION, (uuid.uuid4().bytes, "f")))
    yield made
    made.close()


@pytest.fixture
def rules(database: Database) -> EventRules:
    return EventRules(database)


async def test_changes_at_once(rules: EventRules) -> None:
    for n in range(50):
        await rules.remove("f", PAUSE)
        await rules.change("f", "$LATEST", lambda rule: replace(rule, retries=None), 0)
        await asyncio.gather(
            rules.change("f", PAUSE, lambda rule: rule, 1),
            rules.change("f", "$LATEST", lambda rule, n=n: replace(rule, retries=n % 3), 1),  # type: ignore[misc]
        )
        assert (await rules.find("f", PAUSE)).id
        assert (await rules.find("f", "$LATEST")).retries == n % 3


async def test_what_is_so_already_changes_nothing(rules: EventRules) -> None:
    first = await rules.change("f", PAUSE, lambda rule: None if rule.id else rule, 1)
    assert (first.generation, first.modified_ms) == (1, 1)
    assert await rules.change("f", PAUSE, lambda rule: None if rule.id else rule, 2) == first
    assert await rules.remove("f", PAUSE) == first
    assert not (await rules.remove("f", PAUSE)).id
    again = await rules.change("f", PAUSE, lambda rule: rule, 3)
    assert again.id > first.id, "an id never comes back"


async def test_each_qualifier_has_its_own(database: Database, rules: EventRules) -> None:
    def missing(rule: EventRule) -> EventRule:
        raise AssertionError(f"{rule.qualifier} is no qualifier of the function")

    for qualifier in ("live", "1"):
        with pytest.raises(errors.ResourceNotFound, match=f"f:{qualifier}"):
            await rules.change("f", qualifier, missing, 0)
        with pytest.raises(errors.ResourceNotFound, match=f"f:{qualifier}"):
            await rules.find("f", qualifier)
    with pytest.raises(errors.ResourceNotFound, match="no"):
        await rules.of("no")
    await database.run(lambda c: [c.execute(ALIAS, (name,)) for name in ("live", "beta")])
    for number, qualifier in enumerate(("$LATEST", "live", "beta")):
        await rules.change("f", qualifier, lambda rule, number=number: replace(rule, retries=number), 0)  # type: ignore[misc]
    await rules.change("f", PAUSE, lambda rule: rule, 0)
    assert [(rule.qualifier, rule.retries) for rule in await rules.of("f")] == [
        ("$LATEST", 0),
        ("beta", 2),
        ("live", 1),
    ]
    assert len(await rules.ids()) == 4
    await database.run(lambda c: c.execute("DELETE FROM functions"))
    assert await rules.ids() == set()


async def test_a_database_of_before_there_were_qualifiers(tmp_path: Path) -> None:
    """What was put for a function is $LATEST's, what stood still stands still, and what was unput is forgotten."""
    Database(tmp_path / "runtimed.db", MIGRATIONS[:BEFORE]).close()
    connection = sqlite3.connect(tmp_path / "runtimed.db")
    with connection:
        for number in range(4):
            connection.execute(FUNCTION, (uuid.uuid4().bytes, f"f{number}"))
        insert = (
            "INSERT INTO event_rules (function, retries, age_s, delay_ms, configured, paused, generation, modified_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, 9, 77)"
        )
        connection.executemany(insert, [(1, 0, 60, 5, 1, 0), (2, None, None, None, 0, 1), (3, 1, None, None, 1, 1)])
        connection.execute(insert, (4, None, None, None, 0, 0))
    connection.close()
    database = Database(tmp_path / "runtimed.db", MIGRATIONS)
    try:
        found = await EventRules(database).all()
    finally:
        database.close()
    kept = sorted((rule.name, rule.qualifier, rule.retries, rule.age_s, rule.delay_ms) for rule in found)
    assert kept == [
        ("f0", "$LATEST", 0, 60, 5), ("f1", PAUSE, None, None, None), ("f2", PAUSE, None, None, None),
        ("f2", "$LATEST", 1, None, None),
    ]  # fmt: skip
    assert {rule.modified_ms for rule in found} == {77}
    assert len({rule.id for rule in found}) == 4
