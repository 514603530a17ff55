"""kill -9 of each process at each step of the dispatcher's replacement, under load.

The launcher tells the steps in its log. A step is held by stopping the process that would take the next one (SIGSTOP),
so that the kill meets it there.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import BinaryIO

import msgspec
import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.dispatch.logs import Cursor
from tests.conftest import need_root
from tests.crash import census, load

SECONDS = 60.0
NAME = "steps"
SOURCE = """
import time

def handler(event, context):
    print(f"ran {event['nonce']}.")
    time.sleep(event.get("pause", 0))
    return {"function": "steps", "revision": 0, "nonce": event["nonce"], "pad": "x" * event.get("pad", 0)}
"""
SHORT = (
    ("starting", "new"),
    ("starting", "old"),
    ("serving", "new"),
    ("handing", "control"),
    ("handing", "old"),
    ("finishing", "new"),
)
STEPS = ("starting", "serving", "handing", "finishing", "over")
VICTIMS = ("new", "old", "control", "launcher")
LONG = tuple((step, victim) for step in STEPS for victim in VICTIMS if (step, victim) != ("over", "old"))
UNNOTICED = {("starting", "new")} | {(step, "control") for step in STEPS}


@pytest.fixture
def node() -> Iterator[Node]:
    need_root()
    with Node.start() as node:
        with Client(node.address) as client:
            client.deploy(NAME, zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=60)
        yield node


def dispatchers(node: Node) -> set[int]:
    return set(census.by_kind(node).get("dispatch", []))


class Listener:
    """What the node's log says from now on."""

    def __init__(self, node: Node) -> None:
        self._log = node.log
        self._from = node.log.stat().st_size

    def heard(self, text: str) -> int:
        return self._log.read_bytes()[self._from :].count(text.encode())


def begin(node: Node, listener: Listener) -> None:
    """SIGHUP, again where the launcher says that it is too early."""
    for attempt in range(1, 1000):
        os.kill(node.launcher.pid, signal.SIGHUP)

        def said(attempt: int = attempt) -> bool:
            return bool(listener.heard("replacing the dispatcher") or listener.heard("is not replaced") == attempt)

        await_true(said, SECONDS, "what the launcher says")
        if listener.heard("replacing the dispatcher"):
            return
        time.sleep(0.01)


def send(signum: int, pid: int | None) -> None:
    with contextlib.suppress(ProcessLookupError):
        if pid is not None:
            os.kill(pid, signum)


def reach(node: Node, step: str, old: int, listener: Listener) -> tuple[int, int | None]:
    """The new dispatcher, and who was stopped so that nobody goes further."""
    control = census.by_kind(node)["control"][0]
    held = {"starting": control, "serving": old}.get(step)
    send(signal.SIGSTOP, held)
    begin(node, listener)
    await_true(lambda: len(dispatchers(node)) == 2 or listener.heard("was replaced") > 0, SECONDS, "another dispatcher")
    if step != "starting":
        await_true(lambda: listener.heard("the new dispatcher takes calls") > 0, SECONDS, "it serves")
    [new] = dispatchers(node) - {old}
    if step == "handing":
        held = new
        send(signal.SIGSTOP, held)
    if step == "finishing":
        await_true(lambda: listener.heard("has handed over what was idle") > 0, SECONDS, "all is handed over")
    if step == "over":
        await_true(lambda: listener.heard("the dispatcher was replaced") > 0, SECONDS, "the old one has left")
    return new, held


@contextlib.contextmanager
def long_call(node: Node) -> Iterator[None]:
    """An invocation that keeps the old one for a while; it is answered, refused or lost with its connection."""

    def call() -> None:
        with load.Caller(node) as caller, contextlib.suppress(load.Lost):
            caller.call(NAME, {"nonce": "long", "pause": 2})

    thread = threading.Thread(target=call)
    thread.start()
    try:
        yield
    finally:
        thread.join()


EVENT = "X-Amz-Invocation-Type: Event\r\n"


def request(event: object, fields: str = "") -> bytes:
    body = msgspec.json.encode(event)
    path = f"/2015-03-31/functions/{NAME}/invocations"
    return f"POST {path} HTTP/1.1\r\nHost: h\r\n{fields}Content-Length: {len(body)}\r\n\r\n".encode() + body


def status(answers: BinaryIO) -> int:
    """Of the next answer, whose body is read."""
    first, size = answers.readline(), 0
    while (line := answers.readline()).strip():
        name, _, value = line.partition(b":")
        size = int(value) if name.lower() == b"content-length" else size
    answers.read(size)
    return int(first.split()[1])


def test_events_that_wait_behind_a_call_are_accepted(node: Node) -> None:
    """More than goes with their connection to the new dispatcher: the old one has read them, and accepts them. The call
    before them ends at the moment of the hand-over."""
    [old] = dispatchers(node)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(SECONDS)
        caller.connect(str(node.run_dir / "invoke.sock"))
        events = [request({"nonce": number, "much": "x" * 5000}, EVENT) for number in range(4)]
        caller.sendall(b"".join([request({"nonce": "call", "pause": 1}), *events]))
        await_true(lambda: census.counters(node, old)["http_requests"] > 0, SECONDS, "a call in flight")
        _, held = reach(node, "serving", old, Listener(node))
        send(signal.SIGCONT, held)
        with caller.makefile("rb") as answers:
            assert [status(answers) for _ in range(5)] == [200, 202, 202, 202, 202]


LOG_SECONDS = 1.5  # less than the old one keeps the event log open for whoever may still bring an event


def event_of_a_held_connection(node: Node) -> tuple[int, float]:
    """What is answered to an event whose connection could not be handed over when all others were, and after how many
    seconds. Its first byte might be HTTP/2's."""
    [old] = dispatchers(node)
    whole = request({"nonce": "held", "much": "x" * 5000}, EVENT)
    with socket.socket(socket.AF_UNIX) as caller:
        caller.settimeout(SECONDS)
        caller.connect(str(node.run_dir / "invoke.sock"))
        listener, began = Listener(node), time.monotonic()
        caller.sendall(whole[:1])
        _, held = reach(node, "serving", old, listener)
        send(signal.SIGCONT, held)
        await_true(lambda: listener.heard("has handed over what was idle") > 0, SECONDS, "all is handed over")
        caller.sendall(whole[1:])
        with caller.makefile("rb") as answers:
            found = status(answers), time.monotonic() - began
    await_true(lambda: dispatchers(node) and old not in dispatchers(node), SECONDS, "the old one has left")
    return found


def test_an_event_of_a_connection_that_could_not_go_yet_is_accepted(node: Node) -> None:
    """The old one's log stays open for it, for a while. When this machine was too slow for that, once more."""
    for _ in range(3):
        answered, seconds = event_of_a_held_connection(node)
        if answered == 202:
            return
        assert seconds > LOG_SECONDS, f"answered {answered} after {seconds:.2f} s"


def failures(pressure: load.Load) -> Counter[str]:
    """What the dispatcher's callers were told that is not the right answer."""
    return Counter(
        {what: n for what, n in pressure.told.items() if what.startswith("dispatch") and not what.endswith("right")}
    )


def kill_at(node: Node, pressure: load.Load, step: str, victim: str) -> None:
    listener, before = Listener(node), failures(pressure)
    [old] = dispatchers(node)
    with long_call(node) if step == "finishing" else contextlib.nullcontext():
        new, held = None, None
        try:
            new, held = reach(node, step, old, listener)
            pids = {"new": new, "old": old, "launcher": node.launcher.pid}
            send(signal.SIGKILL, pids[victim] if victim in pids else census.by_kind(node)["control"][0])
        finally:
            send(signal.SIGCONT, held)
    moment = time.monotonic()
    if victim == "launcher":
        node.start_again()
    await_true(lambda: len(dispatchers(node)) == 1, SECONDS, "one dispatcher")
    await_true(node.answers, SECONDS, "the control plane's answer")
    await_true(lambda: pressure.served_since(moment), SECONDS, "answers on each way")
    if (step, victim) in UNNOTICED:
        assert failures(pressure) == before, f"noticed: {failures(pressure) - before}"


def executions(node: Node) -> Counter[str]:
    """How often each nonce was seen by a handler, as far as the logs tell."""
    found: Counter[str] = Counter()
    for directory in (node.state_dir / "logs").iterdir():
        cursor = Cursor(directory)
        while records := cursor.read():
            for record in records:
                if record.payload.startswith(b"ran "):
                    found[record.payload.split()[1].decode()] += 1
    return found


def walk(node: Node, combinations: tuple[tuple[str, str], ...]) -> None:
    with load.Load(node, [NAME], callers=2, moving=False) as pressure:
        moment = time.monotonic()
        await_true(lambda: pressure.served_since(moment), SECONDS, "the first answers")
        for step, victim in combinations:
            try:
                kill_at(node, pressure, step, victim)
            except BaseException as error:
                error.add_note(f"{victim} killed while {step}; {dict(pressure.told)}\n" + census.output(node))
                raise
    assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
    await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    ran = executions(node)
    del ran["long."]
    assert sum(ran.values()) > 10, "the logs tell"
    assert not {nonce: n for nonce, n in ran.items() if n > 1}, "invocations that ran more than once"


def test_steps(node: Node) -> None:
    walk(node, SHORT)


@pytest.mark.soak
def test_every_step(node: Node) -> None:
    walk(node, LONG)
