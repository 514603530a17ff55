"""An environment killed at each step of its life: at import, with the event in hand, while the answer is on its way,
after it, and frozen."""

from __future__ import annotations

import os
import signal
import threading

import msgspec
import psutil
import pytest

from bench.calls import zipped
from bench.node import PROC, Node, await_true
from runtimed.client import Client
from runtimed.model import wire
from tests.crash import census, load
from tests.outcomes import Outcome

SECONDS = 60.0
# Numbers of rt_sigtimedwait; of sendmsg and poll (or ppoll).
CALLS = {"x86_64": ((128,), (46, 7)), "aarch64": ((137,), (211, 73))}
AT_IMPORT = """
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
"""
MORTAL = """
import os, signal, threading, time

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def handler(event, context):
    if event.get("die") == "now":
        die()
    if event.get("wait"):
        signal.sigwait({signal.SIGUSR1})
    if "after" in event:
        threading.Timer(event["after"], die).start()
    return {"nonce": event["nonce"], "pad": "x" * event.get("pad", 0)}
"""


def deploy(node: Node, name: str, source: str) -> None:
    with Client(node.address) as client:
        client.deploy(name, zipped(source), runtime="python3.11", handler="app.handler", timeout=20)


def judge(answer: wire.Answer, body: bytes, nonce: int, pad: int = 0) -> bool:
    """Right (True), or failed as an environment's end is told (False); anything else is wrong."""
    value = msgspec.json.decode(body)
    if answer.outcome == wire.Outcome.FUNCTION_ERROR:
        assert value["errorType"] == "Runtime.ExitError", value
        assert "signal: killed" in value["errorMessage"], value
        return False
    assert answer.outcome == wire.Outcome.SUCCESS, answer
    assert (value["nonce"], len(value["pad"])) == (nonce, pad), body[:200]
    return True


def call_under_way(pid: int) -> int:
    """The number of the system call that a process waits in; -1: in none."""
    try:
        word = (PROC / str(pid) / "syscall").read_text().split()[0]
    except (OSError, IndexError):  # it has gone
        return -1
    return -1 if word == "running" else int(word)


def waiting_in(node: Node, calls: tuple[int, ...]) -> list[int]:
    """Environments that wait in one of these system calls."""
    found = census.by_kind(node).get("environment", [])
    return [pid for pid in found if call_under_way(pid) in calls]


def die_while_answering(node: Node, caller: load.Caller) -> None:
    """While the dispatcher stands still an answer gets as far as the channel holds; then its sender dies."""
    sigwait, sending = CALLS[os.uname().machine]
    got: list[bool] = []
    event = {"nonce": 5, "wait": True, "pad": 5_000_000}
    calling = threading.Thread(target=lambda: got.append(judge(*caller.call("mortal", event), 5, 5_000_000)))
    calling.start()
    dispatch = node.roles()["dispatch"]
    found: list[int] = []

    def there() -> bool:
        found[:] = waiting_in(node, sigwait)
        return bool(found)

    await_true(there, SECONDS, "an environment with the event")
    [pid] = found
    os.kill(dispatch, signal.SIGSTOP)
    try:
        await_true(lambda: psutil.Process(dispatch).status() == psutil.STATUS_STOPPED, SECONDS, "it stands still")
        os.kill(pid, signal.SIGUSR1)
        await_true(lambda: pid in waiting_in(node, sending), SECONDS, "a full channel")
        os.kill(pid, signal.SIGKILL)
    finally:
        os.kill(dispatch, signal.SIGCONT)
    calling.join(SECONDS)
    assert got == [False], "what was cut short is no answer"


@pytest.mark.case("crash", "an environment killed at import, with an event in hand, while answering, after it")
def test_steps(shared: Node, outcome: Outcome) -> None:
    deploy(shared, "import", AT_IMPORT)
    deploy(shared, "mortal", MORTAL)
    with load.Caller(shared) as caller:
        assert not judge(*caller.call("import", {"nonce": 1}), 1)
        assert not judge(*caller.call("mortal", {"nonce": 2, "die": "now"}), 2)
        assert judge(*caller.call("mortal", {"nonce": 3}), 3), "the next call has a new environment"
        die_while_answering(shared, caller)
        for nonce in range(10, 40):  # five megabytes take some milliseconds on their way
            event = {"nonce": nonce, "after": (nonce - 10) / 2000, "pad": 5_000_000}
            judge(*caller.call("mortal", event), nonce, 5_000_000)
        for nonce in range(40, 60):
            judge(*caller.call("mortal", {"nonce": nonce, "after": 0.0}), nonce)
        while not judge(*caller.call("mortal", {"nonce": 60}), 60):
            pass
    with Client(shared.address) as client:
        for name in ("import", "mortal"):
            client.delete_function(name)
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    outcome("the call that it took along fails as Runtime.ExitError, no answer is cut short, the next is served")


@pytest.mark.case("crash", "an environment killed while it is frozen, and while it thaws")
def test_frozen(shared: Node, outcome: Outcome) -> None:
    deploy(shared, "cold", MORTAL)
    with load.Caller(shared) as caller:
        dispatch = shared.roles()["dispatch"]

        def all_frozen() -> bool:
            page = census.counters(shared, dispatch)
            return page["environments_frozen"] == page["environments"] > 0

        for nonce in range(3):
            while not judge(*caller.call("cold", {"nonce": nonce}), nonce):
                pass
            await_true(all_frozen, SECONDS, "frozen environments")
            for pid in census.by_kind(shared)["environment"]:
                os.kill(pid, signal.SIGKILL)
        while not judge(*caller.call("cold", {"nonce": 9}), 9):
            pass
    for name in load.FUNCTIONS:  # those of others were killed too
        with Client(shared.address) as client:
            client.invoke(name, {"nonce": 1})
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    outcome("found dead when it is thawed: that call fails as Runtime.ExitError or gets another environment")
