"""The freezer on a real node: what a function left running stands still between its invocations, as in Lambda, and goes
on with the next one; an environment at work is never frozen."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from tests.conftest import need_root

PATIENCE = 60.0
GRACE = 0.02
HELD = 0.5  # seconds, at least, for which it is seen to be frozen
NAME = "restless"
# A thread and a process that count, and remember the longest time in which they could not.
SOURCE = """
import mmap, os, struct, threading, time

kept = mmap.mmap(-1, 32)

def read(at):
    return struct.unpack_from("<qd", kept, at)

def count(at):
    before = time.monotonic()
    while True:
        time.sleep(0.001)
        now = time.monotonic()
        turns, longest = read(at)
        struct.pack_into("<qd", kept, at, turns + 1, max(longest, now - before))
        before = now

if os.fork() == 0:
    count(16)
threading.Thread(target=count, args=(0,), daemon=True).start()

def handler(event, context):
    first = read(0)[0], read(16)[0]
    while min(read(0)[0] - first[0], read(16)[0] - first[1]) < event.get("turns", 0):
        time.sleep(0.001)
    return {"first": first, "thread": read(0), "process": read(16)}
"""


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    need_root()
    directory: Path = tmp_path_factory.mktemp(NAME)
    (directory / "app.py").write_text(SOURCE)
    settings = {"RUNTIMED_POOLS_FREEZE_AFTER_MS": str(round(GRACE * 1000))}
    with Node.start(settings) as node, Client(node.address) as client:
        client.deploy(NAME, directory, handler="app.handler", timeout=60)
        client.invoke(NAME, {})
        yield client


def frozen(client: Client) -> bool:
    found = client.statistics(NAME).functions[0].environments
    return (found.idle, found.frozen) == (1, 1)


def test_nothing_runs_on_between_invocations(client: Client) -> None:
    client.invoke(NAME, {"turns": 10})
    await_true(lambda: frozen(client), PATIENCE, "the idle environment is frozen")
    since = time.monotonic()
    await_true(lambda: time.monotonic() - since > HELD, PATIENCE, "some time passes")
    after = client.invoke(NAME, {"turns": 10}).value
    assert client.statistics(NAME).functions[0].cold_starts == 1, "it was frozen, not replaced"
    # Half of it: the last of them may have stood still a little after it was said.
    assert min(after["thread"][1], after["process"][1]) >= HELD / 2


def test_what_is_at_work_is_never_frozen(client: Client) -> None:
    """A call that lasts for many times the grace; its thread and its process count all the while."""
    turns = round(20 * GRACE / 0.001)
    done = client.invoke(NAME, {"turns": turns}).value
    assert done["thread"][0] - done["first"][0] >= turns
    assert done["process"][0] - done["first"][1] >= turns


def test_calls_at_the_moment_of_freezing(client: Client) -> None:
    """However near to it they come: each is answered, by the environment that there is."""
    for number in range(100):
        pause = GRACE * (0.5 + number / 100)
        since = time.monotonic()
        while time.monotonic() - since < pause:
            time.sleep(pause / 20)
        assert client.invoke(NAME, {"turns": 1}, timeout=PATIENCE).error() is None
    assert client.statistics(NAME).functions[0].cold_starts == 1
