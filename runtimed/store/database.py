"""The SQLite database: one connection, used by one thread.

Callers on the event loop hand over a function of the connection and await its result; each runs in a transaction of its
own, and its future is done only after the commit is on disk (WAL, synchronous=FULL). One thread means no locks, no busy
time-outs, and a commit ten times cheaper than through a pool.

The schema's version is `PRAGMA user_version`: a newer daemon migrates forward, an older one refuses. `application_id`
marks the file as ours. After a crash SQLite recovers from its WAL; a file that fails `quick_check` is refused, because
going on would lose more.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import struct
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from runtimed.model import errors

T = TypeVar("T")
Work = Callable[[sqlite3.Connection], T]
Migration = tuple[str, ...]  # the statements that lead from one schema version to the next

MODE = 0o640
# Of SQLite's error codes: conditions of the disk, which may pass.
DISK = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN}
WAL_HEAD = struct.Struct(">8I")
WAL_MAGIC = 0x377F0682  # its last bit says in which byte order checksums are
WAL_VERSION = 3007000

log = logging.getLogger(__name__)

APPLICATION_ID = 0x72756E74  # "runt": what file(1) and `PRAGMA application_id` see


class StoreError(Exception):
    """The state directory cannot be used; the text says why and what to do."""


class _Request(Generic[T]):
    """One call on its way to the thread and back."""

    def __init__(self, work: Work[T], loop: asyncio.AbstractEventLoop) -> None:
        self.work = work
        self.loop = loop
        self.future: asyncio.Future[T] = loop.create_future()

    def run(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("BEGIN IMMEDIATE")
            try:
                result = self.work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    with suppress(sqlite3.Error):  # what failed first is what counts
                        connection.execute("ROLLBACK")
                raise
        except Exception as error:
            self._deliver(partial(self.future.set_exception, _told(error, connection)))
        else:
            self._deliver(partial(self.future.set_result, result))

    def _deliver(self, settle: Callable[[], None]) -> None:
        def settle_unless_cancelled() -> None:
            if not self.future.done():
                settle()

        try:
            self.loop.call_soon_threadsafe(settle_unless_cancelled)
        except RuntimeError:
            pass  # the loop is closed: nobody waits any more


def _told(error: Exception, connection: sqlite3.Connection) -> Exception:
    """What callers hear when the disk does not take, or does not give, what the database needs."""
    if not isinstance(error, sqlite3.OperationalError) or getattr(error, "sqlite_errorcode", 0) & 0xFF not in DISK:
        return error
    log.error("the database: %s", error)
    (_, _, path) = connection.execute("PRAGMA database_list").fetchone()
    return errors.ServiceUnavailable(
        f"The node cannot keep anything now: {path}: {error}. Make room on that disk, or repair it, and try again."
    )


class Database:
    """Opens on construction (blocking, before the loop serves); `close` waits for what was handed over."""

    def __init__(self, path: Path, migrations: Sequence[Migration]) -> None:
        self.path = path
        self._connection = _open(path, migrations)
        self._requests: queue.SimpleQueue[_Request[Any] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name="database", daemon=True)
        self._thread.start()

    async def run(self, work: Work[T]) -> T:
        """`work(connection)` in a transaction, on the database's thread; returns after the commit.

        Cancelling the caller does not stop the transaction: it is committed or rolled back as a whole either way.
        """
        if not self._thread.is_alive():
            raise StoreError(f"{self.path} is closed")
        request = _Request(work, asyncio.get_running_loop())
        self._requests.put(request)
        return await request.future

    def close(self) -> None:
        self._requests.put(None)
        self._thread.join()

    def _serve(self) -> None:
        with closing(self._connection):
            while (request := self._requests.get()) is not None:
                request.run(self._connection)
                del request  # its future and result must not live until the next one comes
            self._connection.execute("PRAGMA optimize")


def _open(path: Path, migrations: Sequence[Migration]) -> sqlite3.Connection:
    try:
        # SQLite gives the files beside it the mode of this one.
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, MODE)
        try:
            os.fchmod(descriptor, MODE)
        finally:
            os.close(descriptor)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except (sqlite3.Error, OSError) as error:
        raise StoreError(f"cannot open {path}: {error}; check that its directory exists and can be written") from None
    try:
        _check_log(path)
        _prepare(connection, path, migrations)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise StoreError(_refusal(path, error)) from None
    except BaseException:
        connection.close()
        raise
    return connection


def _refusal(path: Path, error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return _corrupt(path, str(error))
    if code == sqlite3.SQLITE_BUSY:
        return f"{path} is in use by another process; stop it first ({error})"
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM):
        return f"cannot use {path}: {error}; it and the files beside it must belong to the owner of {path.parent}"
    return f"cannot use {path}: {error}"


def _corrupt(path: Path, what: str) -> str:
    return (
        f"{path} is damaged ({what}). Nothing was changed. Restore a backup of it, or save what can be read with "
        f"`sqlite3 {path} .recover | sqlite3 {path}.recovered`, or move {path}, {path}-wal and {path}-shm away to "
        "start with no functions"
    )


def _check_log(path: Path) -> None:
    """SQLite takes a write-ahead log with a damaged head for an empty one, and what was acknowledged is gone. Its head
    is on disk before anything follows it, so that a crash does not leave this. Format: sqlite.org/fileformat2.html."""
    try:
        with path.with_name(path.name + "-wal").open("rb") as file:
            head = file.read(WAL_HEAD.size)
            more = bool(file.read(1))
    except FileNotFoundError:
        return
    if more and (WAL_HEAD.unpack(head)[0] & ~1 != WAL_MAGIC or WAL_HEAD.unpack(head)[1] != WAL_VERSION):
        raise StoreError(_corrupt(path, f"the head of {path.name}-wal is not one"))


def _prepare(connection: sqlite3.Connection, path: Path, migrations: Sequence[Migration]) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    if pages and application != APPLICATION_ID:
        raise StoreError(f"{path} is an SQLite database of another program; choose another state directory")
    if version > len(migrations):
        raise StoreError(
            f"{path} was written by a newer runtimed (schema {version}; this one knows {len(migrations)}). "
            "Install that version again, or start with another state directory"
        )
    if pages:
        problems = [row[0] for row in connection.execute("PRAGMA quick_check(1)")]
        if problems != ["ok"]:
            raise StoreError(_corrupt(path, " ".join(problems[0].split())))
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    for number, statements in enumerate(migrations[version:], start=version + 1):
        # One transaction a step: a crash leaves the old version or the new one. executescript would commit first.
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement in statements:
                connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {number}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise
