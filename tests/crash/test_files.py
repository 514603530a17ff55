"""What lies on disk is damaged, missing or of another version: the node refuses to start with what to do, changes
nothing, and starts again when it is put right; what concerns one function stays with that function."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.node import Node, await_true, processes
from runtimed.client import Client
from runtimed.model import errors
from runtimed.model.function import State
from tests.conftest import need_root
from tests.crash import load
from tests.outcomes import Outcome

EXIT_CONFIGURATION = 78
SECONDS = 60.0


@pytest.fixture(scope="module")
def stopped() -> Iterator[Node]:
    """A node with two functions, killed, so that its write-ahead log is there."""
    need_root()
    with Node.start() as node:
        with Client(node.address) as client:
            for name in ("kept", "spare"):
                load.deploy(client, name)
        before = node.processes()
        # The control plane first: told of the launcher's end it would close the database in order.
        for pid in (node.roles()["control"], node.launcher.pid):
            os.kill(pid, signal.SIGKILL)
        node.launcher.wait()
        await_true(lambda: not set(before) & {one for one, _ in processes().values()}, SECONDS, "the end of all")
        keep = node.directory / "keep"
        shutil.copytree(node.state_dir, keep, symlinks=True, ignore=shutil.ignore_patterns("tmp"))
        yield node
        restore(node)
        node.start_again()


def restore(node: Node) -> None:
    """The state as it was, owners and modes too."""
    keep = node.directory / "keep"
    for name in ("runtimed.db", "runtimed.db-wal", "runtimed.db-shm"):
        (node.state_dir / name).unlink(missing_ok=True)
        if (keep / name).exists() and not name.endswith("-shm"):
            shutil.copy2(keep / name, node.state_dir / name)
    for name in ("keys", "packages"):
        shutil.rmtree(node.state_dir / name)
        shutil.copytree(keep / name, node.state_dir / name)
    owner = node.state_dir.stat()
    for path in node.state_dir.rglob("*"):
        if path.relative_to(node.state_dir).parts[0] in ("runtimed.db", "runtimed.db-wal", "keys", "packages"):
            os.chown(path, owner.st_uid, owner.st_gid)


def refused(node: Node) -> str:
    """Starts the node, which must leave with the status on which systemd does not try again; what it said."""
    begun = node.log.stat().st_size
    node.launcher = node._launch()
    status = node.launcher.wait(SECONDS)
    said = node.log.read_bytes()[begun:].decode()
    assert status == EXIT_CONFIGURATION, (status, said)
    assert "Traceback" not in said
    return said


def header(path: Path) -> None:
    with path.open("r+b") as file:
        file.write(b"\xde\xad\xbe\xef" * 8)


def half(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def middle(path: Path) -> None:
    """The second page on: a b-tree's head, not only what a row holds."""
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096))


def newer(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA user_version = 999")
    connection.close()


def log_header(path: Path) -> None:
    wal = path.with_name(path.name + "-wal")
    assert wal.stat().st_size > 4096, "acknowledged transactions are in it"
    header(wal)


def flushed(node: Node) -> None:
    """Everything from the write-ahead log in the file itself."""
    connection = sqlite3.connect(node.state_dir / "runtimed.db")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


@pytest.mark.case("fault", "the database is damaged: header, half of it gone, a page overwritten, its log overwritten")
def test_a_damaged_database(stopped: Node, outcome: Outcome) -> None:
    database = stopped.state_dir / "runtimed.db"
    damages: tuple[tuple[Callable[[Path], None], bool], ...] = (
        (header, True), (half, True), (middle, True), (log_header, False),
    )  # fmt: skip
    for damage, flush in damages:
        restore(stopped)
        if flush:
            flushed(stopped)
        damage(database)
        damaged = database.read_bytes()
        said = refused(stopped)
        assert f"{database}" in said and "is damaged" in said, (damage.__name__, said)
        assert "backup" in said and ".recover" in said, said
        assert database.read_bytes() == damaged, f"{damage.__name__}: the file was changed"
    outcome("refused at start with status 78, the file's name and three ways out; nothing is changed on disk")


@pytest.mark.case("fault", "the database was written by a newer version")
def test_a_newer_database(stopped: Node, outcome: Outcome) -> None:
    restore(stopped)
    flushed(stopped)
    newer(stopped.state_dir / "runtimed.db")
    assert "newer runtimed" in refused(stopped)
    outcome("refused at start with status 78; it says which version to install")


@pytest.mark.case("fault", "the key of environment variables is missing, short, another, or readable by others")
def test_keys(stopped: Node, outcome: Outcome) -> None:
    key = stopped.state_dir / "keys/environment.key"
    changes: tuple[tuple[Callable[[], object], str], ...] = (
        (key.unlink, "is missing"),
        (lambda: os.truncate(key, 7), "has 7 bytes"),
        (lambda: key.write_bytes(bytes(32)), "not the key that the database was written with"),
        (lambda: key.chmod(0o644), "can be read by others"),
    )
    for change, words in changes:
        restore(stopped)
        change()
        said = refused(stopped)
        assert str(key) in said and words in said, said
    outcome("refused at start with status 78; it says what to restore or change")


@pytest.mark.case("fault", "unpacked code is missing: with its package, and without")
def test_missing_trees(stopped: Node, outcome: Outcome) -> None:
    restore(stopped)
    packages = stopped.state_dir / "packages"
    for tree in (packages / "sha256").iterdir():
        shutil.rmtree(tree)
    stopped.start_again()
    with Client(stopped.address) as client:
        for name in ("kept", "spare"):  # unpacked again from their packages
            client.wait_until_active(name, SECONDS)
            assert client.invoke(name, {"nonce": 1}).value["nonce"] == 1
    stop(stopped)
    restore(stopped)
    with Client(stopped.address) as client:
        stopped.start_again()
        gone = client.get_function("spare")
        stop(stopped)
        (packages / "zip" / f"{base64.b64decode(gone.code_sha256).hex()}.zip").unlink()
        for tree in (packages / "sha256").iterdir():
            shutil.rmtree(tree)
        stopped.start_again()
        await_true(lambda: client.get_function("spare").state is State.FAILED, SECONDS, "a function without code fails")
        reason = client.get_function("spare").state_reason
        assert isinstance(reason, str) and "Upload the code again" in reason, reason
        with pytest.raises(errors.ResourceConflict, match="Upload the code again"):
            client.invoke("spare", {"nonce": 1})
        client.wait_until_active("kept", SECONDS)
        assert client.invoke("kept", {"nonce": 2}).value["nonce"] == 2
        load.deploy(client, "spare")
        assert client.invoke("spare", {"nonce": 3}).value["nonce"] == 3
    stop(stopped)
    outcome("unpacked again from the package; without it the function is Failed and says so, the others serve")


def stop(node: Node) -> None:
    node.launcher.send_signal(signal.SIGTERM)
    assert node.launcher.wait(SECONDS) == 0


@pytest.mark.case("fault", "a second node on the same directories")
def test_a_second_node(own_node: Node, outcome: Outcome) -> None:
    first = own_node.launcher
    begun = own_node.log.stat().st_size
    second = own_node._launch()
    try:
        assert second.wait(SECONDS) != 0
    finally:
        second.kill()
    said = own_node.log.read_bytes()[begun:].decode()
    assert str(own_node.run_dir) in said and str(first.pid) in said, said
    assert own_node.answers(), "the first is not disturbed"
    outcome("refused; it names the directory and the first one's process id, which goes on undisturbed")
