"""Thousands of functions on a node, quickly: one is deployed, the others are rows beside it in the registry of the node
that is stopped meanwhile, as deployments of the same package would have left them. Then each is called once.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import http.client
import os
import signal
import socket
import sqlite3
import sys
import uuid

import msgspec

from bench import calls
from bench.http import Served
from bench.node import await_true
from runtimed.store.secrets import Secrets

AT_ONCE = 8  # calls


def names(count: int) -> list[str]:
    return [f"many-{number:05}" for number in range(count)]


def populate(served: Served, count: int, source: str = calls.HELLO) -> None:
    """`count` functions of the same small package, each called once. The node is started anew."""
    first, *others = names(count)
    runtime = next(one.name for one in served.client.runtimes() if one.name.startswith("python"))
    served.client.deploy(first, calls.zipped(source), runtime=runtime, handler="app.handler", timeout=60)
    served.node.launcher.send_signal(signal.SIGTERM)
    served.node.launcher.wait(60)
    _copy(served, first, others)
    served.node.start_again(300)
    print(f"  {count} functions", file=sys.stderr)
    _call_all(served, [first, *others])


def _copy(served: Served, first: str, others: list[str]) -> None:
    """The variables of each are sealed for it; everything else is the same."""
    secrets = Secrets((served.node.state_dir / "keys" / "environment.key").read_bytes())
    nothing = msgspec.json.encode({})
    with contextlib.closing(sqlite3.connect(served.node.state_dir / "runtimed.db")) as registry, registry:
        registry.execute("PRAGMA defer_foreign_keys = ON")
        function = registry.execute("SELECT id, modified_ms, state FROM functions WHERE name = ?", (first,)).fetchone()
        target = registry.execute(
            "SELECT definition, zip, package FROM targets WHERE function = ?", (function[0],)
        ).fetchone()
        for name in others:
            uid = uuid.uuid4().bytes
            row = registry.execute(
                "INSERT INTO functions (uid, name, generation, revision_id, modified_ms, state, reason, reason_code) "
                "VALUES (?, ?, 2, ?, ?, ?, '', '')",
                (uid, name, str(uuid.uuid4()), *function[1:]),
            ).lastrowid
            serving = registry.execute(
                "INSERT INTO targets (function, definition, environment, zip, package) VALUES (?, ?, ?, ?, ?)",
                (row, target[0], secrets.seal(nothing, uid), *target[1:]),
            ).lastrowid
            registry.execute("UPDATE functions SET serving = ? WHERE id = ?", (serving, row))


class _Connection(http.client.HTTPConnection):
    """To the socket that needs no key."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(120)
        self.sock.connect(self._path)


def _call_all(served: Served, functions: list[str]) -> None:
    await_true(lambda: os.path.exists(served.socket), 60, "the socket for calls")

    def call(mine: list[str]) -> None:
        with contextlib.closing(_Connection(served.socket)) as connection:
            for number, name in enumerate(mine):
                connection.request("POST", f"/2015-03-31/functions/{name}/invocations", calls.EVENT)
                answer = connection.getresponse()
                body = answer.read()
                if answer.status != 200:
                    raise RuntimeError(f"{name}: {answer.status} {body!r}")
                if number % 250 == 249:
                    print(f"  {(number + 1) * AT_ONCE} called", end="\r", file=sys.stderr)

    with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as threads:
        for done in [threads.submit(call, functions[start::AT_ONCE]) for start in range(AT_ONCE)]:
            done.result()
