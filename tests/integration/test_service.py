"""The node as a service: what it tells the service manager, and when; who hangs is replaced; SIGTERM drains."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.node import Node, await_true, fresh_directory, private
from runtimed.client import Client

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="a node makes sandboxes, which needs root")

SLOW = """
import pathlib, time

def handler(event, context):
    print("running", flush=True)
    time.sleep(event.get("seconds", 0))
    return event
"""
PATIENCE = 60.0
WATCHDOG_USEC = 4_000_000


class ServiceManager:
    """The end of the notification socket that systemd holds."""

    def __init__(self, path: Path) -> None:
        self.environment = {"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(WATCHDOG_USEC)}
        self.told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))

    def expect(self, line: str) -> list[str]:
        """Waits for a line that begins so; returns that datagram's lines."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            lines = self._socket.recv(4096).decode().split("\n")
            self.told += lines
            if any(told.startswith(line) for told in lines):
                return lines

    def drop(self) -> None:
        """Forgets what was told until now."""
        self._socket.setblocking(False)
        try:
            while True:
                self._socket.recv(4096)
        except BlockingIOError:
            pass

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def told_to(tmp_path: Path) -> Iterator[ServiceManager]:
    made = ServiceManager(tmp_path / "notify")
    yield made
    made.close()


def begin(told_to: ServiceManager, prepare: Callable[[Path], None] | None = None, **settings: str) -> Node:
    """A node that has just been started."""
    directory = fresh_directory()
    if prepare is not None:
        prepare(directory)
    return Node(directory, {**private(directory), **told_to.environment, **settings})


def someone_elses_database(directory: Path) -> None:
    (directory / "state").mkdir()
    with sqlite3.connect(directory / "state" / "runtimed.db") as database:
        database.execute("PRAGMA application_id = 1234567")
        database.execute("CREATE TABLE theirs (value)")
    database.close()


def deploy(node: Node, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(SLOW)
    with Client(node.address) as client:
        client.deploy("slow", tmp_path / "app.py", timeout=30)


def test_ready_when_it_serves_and_who_hangs_is_replaced(told_to: ServiceManager, tmp_path: Path) -> None:
    with begin(told_to, RUNTIMED_NODE_HANG_SECONDS="3") as node:
        told_to.expect("READY=1")
        assert node.answers(), "READY=1 came before the API answered"
        assert told_to.told[0].startswith("STATUS=Starting")
        deploy(node, tmp_path)
        assert node.runtimectl("invoke", "slow").returncode == 0
        told_to.expect("WATCHDOG=1")
        for role, words in (("dispatch", "the dispatcher"), ("control", "the control plane")):
            before = node.roles()
            told_to.drop()
            os.kill(before[role], signal.SIGSTOP)
            told_to.expect(f"STATUS=Starting {words} again")
            told_to.expect("STATUS=Serving")
            told_to.expect("WATCHDOG=1")
            await_true(node.answers, PATIENCE, "the API again")
            after = node.roles()
            assert after[role] != before[role]
            assert {name: pid for name, pid in after.items() if name != role} == {
                name: pid for name, pid in before.items() if name != role
            }
            assert node.runtimectl("invoke", "slow", "--payload", '{"after": 1}').returncode == 0


def test_sigterm_drains(told_to: ServiceManager, tmp_path: Path) -> None:
    answers: list[bytes] = []
    with begin(told_to, RUNTIMED_NODE_DRAIN_SECONDS="25") as node:
        told_to.expect("READY=1")
        deploy(node, tmp_path)

        def call() -> None:
            with Client(node.address) as client:
                answers.append(client.invoke("slow", {"seconds": 3}).payload)

        running = threading.Thread(target=call)
        running.start()
        with Client(node.address) as client:
            await_true(lambda: client.status().environments.busy == 1, PATIENCE, "a busy environment")
        node.launcher.send_signal(signal.SIGTERM)
        lines = told_to.expect("STOPPING=1")
        extended = next(int(line.partition("=")[2]) for line in lines if line.startswith("EXTEND_TIMEOUT_USEC="))
        assert extended > 25_000_000
        assert node.launcher.poll() is None
        told_to.expect("STATUS=Draining")
        assert node.launcher.wait(PATIENCE) == 0
        running.join(PATIENCE)
    assert answers == [b'{"seconds": 3}']
    assert "READY=1" in told_to.told


def test_what_cannot_start_is_not_tried_again(told_to: ServiceManager) -> None:
    node = begin(told_to, someone_elses_database)
    assert node.launcher.wait(PATIENCE) == 78
    log = node.log.read_text()
    assert node.stop() == ["the launcher ended with 78"], log
    shutil.rmtree(node.directory)
    assert "runtimed.db" in log, "it says which file"
    assert not any(line.startswith("READY") for line in told_to.told)
