"""A full disk below the state directory, a state directory that cannot be written, and a database whose writes fail.

The node runs in a mount namespace of its own, with a small tmpfs as its state directory: mount and files go with it.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import errors, wire
from runtimed.store.database import Database
from runtimed.store.schema import MIGRATIONS
from tests.conftest import need_root
from tests.crash import census, load
from tests.crash.test_files import EXIT_CONFIGURATION
from tests.outcomes import Outcome

SECONDS = 60.0
# "$5" is the state directory: `python -m runtimed --state-dir DIR --run-dir DIR`.
MOUNTED = ("unshare", "--mount", "--propagation", "private", "sh", "-c")
SMALL = (*MOUNTED, 'mkdir -p "$5" && mount -t tmpfs -o size=64m,mode=0755 none "$5" && exec "$@"', "sh")
READ_ONLY = (*MOUNTED, 'mkdir -p "$5" && mount -t tmpfs -o ro none "$5" && exec "$@"', "sh")


@pytest.fixture
def small() -> Iterator[Node]:
    """A node with one warm function on a disk of 64 MB."""
    need_root()
    with Node.start(prefix=SMALL) as node:
        with Client(node.address) as client:
            load.deploy(client, "warm")
            client.invoke("warm", {"nonce": 0})
        yield node


def inside(node: Node) -> Path:
    """The state directory as the node sees it."""
    return Path(f"/proc/{node.launcher.pid}/root{node.state_dir}")


def fill(node: Node) -> Path:
    """Takes all room there is, to the last byte."""
    filler = inside(node) / "filler"
    with filler.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while file.write(b"x" * size) == size:
                    pass
    return filler


def change_until_refused(client: Client) -> None:
    """The database's log takes a few changes before it needs a page more."""
    for number in range(200):
        client.update_function_configuration("warm", description=f"number {number} " + "x" * 200)
        client.wait_until_active("warm", SECONDS)


@pytest.mark.case("fault", "the disk of the state directory is full")
def test_a_full_disk(small: Node, outcome: Outcome) -> None:
    with load.Caller(small) as caller, Client(small.address, timeout=SECONDS) as client:
        filler = fill(small)
        with pytest.raises((errors.CodeStorageExceeded, errors.ServiceUnavailable), match="(?i)disk"):
            client.create_function(
                "refused", load.source("refused"), runtime="python3.11", handler="app.handler", timeout=20
            )
        with pytest.raises(errors.ServiceUnavailable, match="(?i)disk"):
            change_until_refused(client)
        for nonce in range(50):
            answer, body = caller.call("warm", {"nonce": nonce})
            assert answer.outcome != wire.Outcome.FUNCTION_ERROR, body
            assert answer.outcome == wire.Outcome.REFUSED or f'"nonce": {nonce}'.encode() in body
            if answer.outcome == wire.Outcome.REFUSED:
                assert answer.status >= 500, answer
        os.kill(census.by_kind(small)["control"][0], signal.SIGKILL)
        filler.unlink()
        await_true(small.answers, SECONDS, "the control plane's return")
        load.deploy(client, "room", 1)
        assert client.invoke("room", {"nonce": 5}).value["nonce"] == 5
        client.wait_until_active("warm", SECONDS)
        assert client.invoke("warm", {"nonce": 6}).value["nonce"] == 6
    await_true(lambda: not census.consistent(small), SECONDS, "counters that agree")
    outcome("deployments are refused and say so, invocations go on; with room again everything works, nothing is lost")


@pytest.mark.case("fault", "the control plane dies while the disk is full")
def test_the_control_plane_returns_to_a_full_disk(small: Node, outcome: Outcome) -> None:
    with load.Caller(small) as caller:
        filler = fill(small)
        os.kill(census.by_kind(small)["control"][0], signal.SIGKILL)
        begun = small.log.stat().st_size
        await_true(
            lambda: b"runtimed.db" in small.log.read_bytes()[begun:] or small.answers(), SECONDS, "a word about it"
        )
        assert small.launcher.poll() is None, "the launcher stays, and the data plane with it"
        answer, body = caller.call("warm", {"nonce": 1})
        assert answer.outcome == wire.Outcome.SUCCESS, (answer, body)
        filler.unlink()
        await_true(small.answers, SECONDS, "the control plane's return")
        with Client(small.address) as client:
            load.deploy(client, "after")
            assert client.invoke("after", {"nonce": 2}).value["nonce"] == 2
    outcome("invocations go on without it; it is started again and again, and serves when there is room")


@pytest.mark.case("fault", "the state directory is read-only at start")
def test_a_read_only_state_directory(tmp_path: Path, outcome: Outcome) -> None:
    need_root()
    node = Node(tmp_path, {}, READ_ONLY)
    assert node.launcher.wait(SECONDS) == EXIT_CONFIGURATION
    said = node.log.read_text()
    assert str(node.state_dir) in said and "ead-only file system" in said, said
    outcome("refused with status 78; it names the directory and the reason")


def fact(connection: sqlite3.Connection, name: str) -> None:
    connection.execute("INSERT INTO facts VALUES (?, ?)", (name, bytes(4000)))


async def test_a_commit_that_cannot_be_written(tmp_path: Path) -> None:
    """Writes fail from some size of file on; what was acknowledged stays, the rest is refused with a reason, and the
    database serves again when they succeed."""
    database = Database(tmp_path / "runtimed.db", MIGRATIONS)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    kept = 0
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, limit[1]))
        refusal = None
        while refusal is None:
            try:
                await database.run(partial(fact, name=f"fact {kept}"))
                kept += 1
            except errors.ServiceUnavailable as error:
                refusal = error
        assert "runtimed.db" in refusal.message
        assert await database.run(lambda c: c.execute("SELECT count(*) FROM facts").fetchone()[0]) == kept > 10
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, ignored)
    await database.run(partial(fact, name="after"))
    database.close()
    connection = sqlite3.connect(tmp_path / "runtimed.db")
    assert connection.execute("SELECT count(*) FROM facts").fetchone()[0] == kept + 1
    connection.close()
