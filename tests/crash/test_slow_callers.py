"""Callers that are slow or silent: who holds a connection without a word, half a message, or never reads. Others, and
environments, do not wait for them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

import msgspec
import pytest

from bench.calls import dispatch_socket
from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.model import wire
from tests.crash import census, load
from tests.neighbour import Neighbour
from tests.outcomes import Outcome

SECONDS = 60.0
IDLE = 1500
BYTES_EACH = 4096  # of a connection without calls: struct connection and its table


def connect(node: Node, within: contextlib.ExitStack) -> socket.socket:
    sock = within.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    sock.settimeout(SECONDS)

    def connected() -> bool:
        try:
            sock.connect(dispatch_socket(node))
        except BlockingIOError:  # the backlog is full just now
            return False
        return True

    await_true(connected, SECONDS, "room in the backlog")
    return sock


@pytest.mark.case("fault", "1,500 callers that connect and say nothing")
def test_idle_connections(shared: Node, outcome: Outcome) -> None:
    dispatch = shared.roles()["dispatch"]
    before = census.resident_kb(dispatch)
    with contextlib.ExitStack() as idle:
        for _ in range(IDLE):
            connect(shared, idle)
        await_true(lambda: census.counters(shared, dispatch)["connections"] >= IDLE, SECONDS, "all taken")
        each = (census.resident_kb(dispatch) - before) * 1024 / IDLE
        with load.Caller(shared) as caller:
            _, body = caller.call("echo-0", {"nonce": 1})
            assert b'"nonce": 1' in body
        assert each < BYTES_EACH, f"{each:.0f} bytes each"
    await_true(lambda: census.counters(shared, dispatch)["connections"] < 10, SECONDS, "all gone")
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    outcome(f"they cost the dispatcher {each:.0f} bytes each; others are served")


@pytest.mark.case("fault", "callers that send half a request, and that never read their answers")
def test_half_requests_and_unread_answers(shared: Node, outcome: Outcome) -> None:
    neighbour = Neighbour(shared)
    dispatch = shared.roles()["dispatch"]
    halt = threading.Event()

    def nothing() -> None:
        halt.wait(0.7)

    def abuse() -> None:
        with contextlib.ExitStack() as open_ones:
            for _ in range(20):
                half = connect(shared, open_ones)
                half.send(wire.encode(wire.Call(name="echo-0", total=1 << 20, body=b"{"), object=1))
            for _ in range(5):
                deaf = connect(shared, open_ones)
                body = msgspec.json.encode({"nonce": 1, "pad": 2_000_000})
                for number in range(1, 5):
                    deaf.send(wire.encode(wire.Call(name="echo-1", total=len(body), body=body), object=number))
            await_true(
                lambda: census.counters(shared, dispatch)["invocations_in_flight"] <= 1, SECONDS, "free environments"
            )
            halt.wait(0.3)

    compared = neighbour.compare(nothing, abuse, rounds=2)
    neighbour.close()
    with Client(shared.address) as client:
        client.delete_function(neighbour.name)
    await_true(lambda: not census.consistent(shared), SECONDS, "counters that agree")
    outcome("no environment waits for them; what they hold is given back with their connections", compared)


@pytest.mark.case("fault", "followers of a log that never read it")
def test_log_followers(shared: Node, outcome: Outcome) -> None:
    control = shared.roles()["control"]
    with contextlib.ExitStack() as following:
        client = following.enter_context(Client(shared.address))
        before = census.resident_kb(control)
        streams = [client.logs("echo-0", follow=True) for _ in range(20)]
        threads = [threading.Thread(target=lambda s=stream: next(s, None)) for stream in streams]
        for thread in threads:  # each has read one event, and no more
            thread.start()
        caller = following.enter_context(contextlib.closing(load.Caller(shared)))
        nonces = itertools.count()

        def called() -> int:
            nonce = next(nonces)
            _, body = caller.call("echo-0", {"nonce": nonce})
            assert f'"nonce": {nonce}'.encode() in body
            return nonce

        # All of them follow before there is much to read: they share one HTTP/2 connection, whose window is soon full.
        await_true(lambda: called() >= 0 and not any(thread.is_alive() for thread in threads), SECONDS, "first events")
        end = called() + 300
        while called() < end:
            pass
        assert client.invoke("echo-0", {"nonce": 5}).value["nonce"] == 5
        grown = census.resident_kb(control) - before
        assert grown < 50_000, f"the control plane grew by {grown} KiB"
        for stream in streams:
            stream.close()
    outcome("calls and other callers of the control plane do not wait for them")
