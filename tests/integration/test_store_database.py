"""The database: migrations, refusals, one transaction a call, and what a crash leaves."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from runtimed.store.database import APPLICATION_ID, Database, StoreError

FIRST = ("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT",)
SECOND = ("ALTER TABLE things ADD COLUMN size INTEGER", "INSERT INTO things (name, size) VALUES ('migrated', 1)")


def names(connection: sqlite3.Connection) -> list[str]:
    return [row[0] for row in connection.execute("SELECT name FROM things ORDER BY name")]


async def test_a_call_is_a_transaction(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", [FIRST])
    try:
        await database.run(lambda c: c.execute("INSERT INTO things VALUES ('kept')"))

        def fails(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO things VALUES ('lost')")
            raise LookupError("no")

        with pytest.raises(LookupError):
            await database.run(fails)
        with pytest.raises(sqlite3.IntegrityError):
            await database.run(lambda c: c.execute("INSERT INTO things VALUES ('kept')"))
        assert await database.run(names) == ["kept"]
    finally:
        database.close()
    with pytest.raises(StoreError, match="closed"):
        await database.run(names)


async def test_a_cancelled_caller_does_not_stop_the_transaction(tmp_path: Path) -> None:
    database = Database(tmp_path / "db", [FIRST])
    try:
        caller = asyncio.create_task(database.run(lambda c: c.execute("INSERT INTO things VALUES ('kept')")))
        await asyncio.sleep(0)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert await database.run(names) == ["kept"]
    finally:
        database.close()


async def test_migrations_go_forward_once(tmp_path: Path) -> None:
    Database(tmp_path / "db", [FIRST]).close()
    for _ in range(2):
        database = Database(tmp_path / "db", [FIRST, SECOND])
        assert await database.run(names) == ["migrated"]
        database.close()


async def test_a_failed_migration_changes_nothing(tmp_path: Path) -> None:
    Database(tmp_path / "db", [FIRST]).close()
    with pytest.raises(StoreError, match="no such table"):
        Database(tmp_path / "db", [FIRST, (SECOND[0], "INSERT INTO nowhere VALUES (1)")])
    connection = sqlite3.connect(tmp_path / "db")
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert [row[1] for row in connection.execute("PRAGMA table_info(things)")] == ["name"]
    connection.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    Database(tmp_path / "db", [FIRST, SECOND]).close()
    with pytest.raises(StoreError, match=r"newer runtimed \(schema 2; this one knows 1\)"):
        Database(tmp_path / "db", [FIRST])


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    with pytest.raises(StoreError, match="another program"):
        Database(tmp_path / "db", [FIRST])


@pytest.mark.parametrize("damage", [b"this is no database at all" * 50, None])
def test_a_damaged_file_is_refused_and_left_alone(tmp_path: Path, damage: bytes | None) -> None:
    path = tmp_path / "db"
    Database(path, [FIRST, *([(f"CREATE TABLE t{n} (a TEXT UNIQUE)",) for n in range(20)])]).close()
    data = damage
    if data is None:  # pages in the middle overwritten
        whole = bytearray(path.read_bytes())
        whole[8192:24576] = b"\xa5" * 16384
        data = bytes(whole)
    path.write_bytes(data)
    with pytest.raises(StoreError, match="is damaged.*Restore a backup"):
        Database(path, [FIRST] * 21)
    assert path.read_bytes() == data


def test_a_missing_directory_is_told(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot open"):
        Database(tmp_path / "nowhere" / "db", [FIRST])


def test_the_file_is_marked_as_ours(tmp_path: Path) -> None:
    Database(tmp_path / "db", [FIRST]).close()
    connection = sqlite3.connect(tmp_path / "db")
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    connection.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from runtimed.store.database import Database

async def main():
    database = Database(Path(sys.argv[1]), [("CREATE TABLE things (name TEXT PRIMARY KEY) STRICT",)])
    for number in range(1_000_000):
        def work(c):
            c.execute("INSERT INTO things VALUES (?)", (f"{number} first",))
            c.execute("INSERT INTO things VALUES (?)", (f"{number} second",))
        await database.run(work)
        print(number, flush=True)

asyncio.run(main())
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    """Killed again and again: every acknowledged transaction is there, whole, and none is there by half."""
    path = tmp_path / "db"
    for lines in (1, 5, 40):
        path.unlink(missing_ok=True)
        for side in ("db-wal", "db-shm"):
            (tmp_path / side).unlink(missing_ok=True)
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        )
        assert process.stdout is not None
        told = [process.stdout.readline() for _ in range(lines)]
        process.send_signal(signal.SIGKILL)
        told += process.stdout.readlines()
        process.stdout.close()
        process.wait()
        acknowledged = len([line for line in told if line.endswith(b"\n")])
        database = Database(path, [FIRST])
        found = await database.run(names)
        database.close()
        assert len(found) % 2 == 0
        assert len(found) // 2 >= acknowledged
        assert {name.split()[0] for name in found} == {str(n) for n in range(len(found) // 2)}
