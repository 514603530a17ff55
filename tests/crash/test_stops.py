"""SIGTERM under load, twice, during the start, during a deployment: what runs ends or is told, nothing stays."""

from __future__ import annotations

import signal
import threading

import pytest

from bench.node import Node, await_true, fresh_directory, private
from runtimed.client import Client
from runtimed.model import wire
from tests.conftest import need_root
from tests.crash import census, load
from tests.outcomes import Outcome

SECONDS = 60.0


@pytest.mark.case("fault", "SIGTERM under load and deployments")
def test_under_load(outcome: Outcome) -> None:
    need_root()
    answers: list[tuple[wire.Answer, bytes]] = []
    with Node.start() as node:
        with Client(node.address) as client:
            load.deploy(client, "echo-0")
        with load.Caller(node) as caller:
            slow = threading.Thread(target=lambda: answers.append(caller.call("echo-0", {"nonce": 77, "pause": 1.0})))
            dispatch = node.roles()["dispatch"]
            with load.Load(node, ["echo-0"]) as pressure:
                slow.start()
                await_true(
                    lambda: census.counters(node, dispatch)["invocations_in_flight"] > 1, SECONDS, "a running call"
                )
                await_true(lambda: pressure.told["deploy: right"] > 0, SECONDS, "a deployment")
                pressure.expect_end()
                node.launcher.send_signal(signal.SIGTERM)
                assert node.launcher.wait(SECONDS) == 0, census.output(node)
                slow.join()
        assert not pressure.wrong, "\n".join(pressure.wrong)
        assert b'"nonce": 77' in answers[0][1], "what ran when the signal came is answered"
        node.start_again()  # as good as new
        with Client(node.address) as client:
            assert client.invoke("echo-0", {"nonce": 1}).value["nonce"] == 1
    outcome("running invocations end and are answered, new ones are refused, deployments go on with the next start")


@pytest.mark.case("fault", "SIGTERM twice")
def test_twice(outcome: Outcome) -> None:
    need_root()
    with Node.start({"RUNTIMED_NODE_DRAIN_SECONDS": "300"}) as node:
        with Client(node.address) as client:
            client.deploy("echo", load.source("echo"), runtime="python3.11", handler="app.handler", timeout=300)

        def call() -> None:
            with load.Caller(node) as caller, pytest.raises(load.Lost):
                caller.call("echo", {"nonce": 1, "pause": 250})

        slow = threading.Thread(target=call)
        slow.start()
        dispatch = node.roles()["dispatch"]
        await_true(lambda: census.counters(node, dispatch)["invocations_in_flight"] == 1, SECONDS, "a running call")
        node.launcher.send_signal(signal.SIGTERM)
        await_true(lambda: "stopping" in node.log.read_text(), SECONDS, "the first signal's effect")
        assert node.launcher.poll() is None
        node.launcher.send_signal(signal.SIGTERM)
        assert node.launcher.wait(SECONDS) == 0
        slow.join()
    outcome("the second one does not wait for what still runs; nothing is left")


def stopped_at(kind: str) -> bool:
    """A node that is stopped when a process of that kind is there. False: it was there for so short a time that nobody
    saw it, and the node serves."""
    directory = fresh_directory()
    node = Node(directory, private(directory))

    def there() -> bool:
        return bool(census.by_kind(node).get(kind))

    await_true(lambda: there() or node.answers(), SECONDS, f"a {kind}, or the node's first answer")
    seen = there()
    left = node.stop()
    assert not left, left
    return seen


@pytest.mark.case("fault", "SIGTERM during the start")
def test_during_the_start(outcome: Outcome) -> None:
    need_root()
    assert stopped_at("seater") and stopped_at("control")
    for _ in range(3):  # it lives so short that it may be over before it is seen
        if stopped_at("task"):
            break
    outcome("it stops where it is; nothing is left")
