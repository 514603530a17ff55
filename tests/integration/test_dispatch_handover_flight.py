"""What is in flight while one dispatcher hands over to another ends where it began, as if nothing were: responses in
parts, streams of HTTP/2, requests over TCP, runtimes of functions' own."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from hyperframe.frame import GoAwayFrame

from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from runtimed.model import wire
from tests.integration.crowd import KEY, TOKEN
from tests.integration.dispatch_stage import Environment, await_true, counters
from tests.integration.grpc_caller import OPTIONS, PATH, Client, Peer, PingFrame
from tests.integration.handover_stage import CONNECTION, ENVIRONMENT, Pair, paired
from tests.integration.http_caller import Caller
from tests.integration.stream_caller import HttpStream, chunk, end, head, invoke_stream
from tests.integration.test_dispatch_grpc_clients import said
from tests.integration.test_dispatch_handover import loops, served_by
from tests.integration.test_dispatch_runtime_api import Runtime, ask, begin_next, report
from tests.integration.test_dispatch_runtime_streams import Streaming

__all__ = ["loops"]
FIELD = f"Authorization: Bearer {TOKEN}"
LAST = 2**31 - 1


@pytest.fixture
def pair(tmp_path: Path, loops: tuple[int, int]) -> Iterator[Pair]:
    with paired(tmp_path, loops) as pair:
        pair.their.acknowledged(pair.their.put(KEY, 5))
        yield pair


def working(pair: Pair) -> tuple[Environment, wire.Invoke]:
    """A new environment of the old one's, with the event that was asked for."""
    environment = pair.old.launch()
    environment.start()
    return environment, environment.invoke()[0]


def pass_idle(pair: Pair, *wanted: int) -> None:
    """All that is not in flight goes to the new one."""
    assert ENVIRONMENT not in pair.pass_all(*wanted), "each is at work"


def follows(pair: Pair, environment: Environment, *wanted: int) -> None:
    """Once it is idle it belongs to the new one, and what else is wanted; the old one leaves."""
    pair.pass_on(ENVIRONMENT, *wanted)
    served_by(pair, environment)
    assert counters(pair.control).node()["launches"] == 0
    assert pair.old.left() == 0


def test_a_response_in_parts_goes_on(pair: Pair) -> None:
    """The rest of its parts, its end, and then the next request of the same connection by the new one."""
    with HttpStream(pair.old) as caller:
        caller.begin()
        environment, invoke = working(pair)
        head(environment, invoke.id, b"one ")
        caller.head()
        assert caller.part() == b"one "
        pair.begin()
        pass_idle(pair)
        chunk(environment, b"two ")
        assert caller.part() == b"two "
        chunk(environment, b"three")
        end(environment)
        assert caller.rest() == (b"three", {})
        pair.pass_on(ENVIRONMENT, CONNECTION)
        caller.post(b"1")
        environment.serve(b'"new"')
        assert caller.answer().body == b'"new"'
    assert pair.old.left() == 0


def test_invoke_stream_goes_on(pair: Pair) -> None:
    """grpcio's, which hears GOAWAY in the middle."""
    with grpc.insecure_channel(f"unix:{pair.old.http_path}", options=OPTIONS) as channel:
        call = invoke_stream(channel)
        environment, invoke = working(pair)
        head(environment, invoke.id, b"one")
        assert next(call).WhichOneof("event") == "start"
        assert next(call).payload_chunk == b"one"
        pair.begin()
        pass_idle(pair)
        chunk(environment, b"two")
        assert next(call).payload_chunk == b"two"
        end(environment)
        assert next(call).HasField("complete")
        assert list(call) == []
        assert call.code() == grpc.StatusCode.OK
    follows(pair, environment)


def test_goaway_twice(pair: Pair) -> None:
    """Calls that are sent before the first one is heard are served, so is what runs; then the connection ends."""
    with Peer(pair.old) as peer:
        peer.call(1, b"1")
        environment, invoke = working(pair)
        pair.begin()
        notice = peer.until(GoAwayFrame)
        assert (notice.last_stream_id, notice.error_code) == (LAST, 0)
        ping = peer.until(PingFrame)
        peer.call(3, b"3")  # was on its way
        another, late = working(pair)
        peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
        last = peer.until(GoAwayFrame)
        assert (last.last_stream_id, last.error_code) == (3, 0)
        pass_idle(pair)
        another.result(late.id, b'"late"')
        assert peer.trailers(3)["grpc-status"] == "0"
        environment.result(invoke.id, b'"first"')
        assert peer.trailers(1)["grpc-status"] == "0"
        assert peer.closed()
    follows(pair, environment, ENVIRONMENT)


def test_a_peer_that_never_hears_goaway_keeps_its_calls(pair: Pair) -> None:
    """It answers no ping; environments are handed over without it, what it calls is served."""
    with Peer(pair.old) as peer:
        peer.call(1, b"1")
        environment, invoke = working(pair)
        pair.begin()
        pass_idle(pair)
        peer.call(3, b"3")
        another, late = working(pair)
        environment.result(invoke.id)
        assert peer.trailers(1)["grpc-status"] == "0"
        another.result(late.id)
        assert peer.trailers(3)["grpc-status"] == "0"
    follows(pair, another, ENVIRONMENT)


async def test_h2load_in_flight(pair: Pair, tmp_path: Path) -> None:
    """Two connections with five streams each, all of them in flight when it begins: every one succeeds."""
    body = pb.InvokeRequest(function_name="f", payload=b"{}").SerializeToString()
    message = tmp_path / "message"
    message.write_bytes(b"\0" + struct.pack(">I", len(body)) + body)
    arguments = ["-n", "10", "-c", "2", "-m", "5", "-d", str(message), "-H", "te: trailers"]
    arguments += ["-H", "content-type: application/grpc", f"--base-uri=unix:{pair.old.http_path}"]
    callers = asyncio.create_task(said("h2load", *arguments, f"http://localhost{PATH}"))

    def serve() -> None:
        held = [working(pair) for _ in range(10)]
        pair.begin()
        for environment, invoke in held:
            environment.result(invoke.id)

    await asyncio.to_thread(serve)
    output = await callers
    assert "10 succeeded, 0 failed, 0 errored, 0 timeout" in output, output
    await asyncio.to_thread(pair.pass_all, *[ENVIRONMENT] * 10)
    assert pair.old.left() == 0


def test_calls_of_grpcio_in_flight(pair: Pair) -> None:
    with Client(pair.old) as client:
        calls = [client.start(b"%d" % number) for number in range(3)]
        held = [working(pair) for _ in calls]
        pair.begin()
        for environment, invoke in held:
            environment.result(invoke.id, b'"done"')
        assert [call.result().payload for call in calls] == [b'"done"'] * 3
    pair.pass_all(*[ENVIRONMENT] * 3)
    assert pair.old.left() == 0


@pytest.mark.parametrize("size", [0, 20])
def test_over_tcp_between_and_within_requests(pair: Pair, size: int) -> None:
    """A connection with a key whose request was read, or some of it: the new one asks for the key again."""
    with Caller(pair.old, tcp=True) as caller, Caller(pair.old, tcp=True) as stranger:
        caller.post(b"1", FIELD)
        environment, invoke = working(pair)
        request = f"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\n{FIELD}\r\nHost: h\r\nContent-Length: 1\r\n"
        request += "\r\n2"
        caller.send(request[:size])
        await_true(lambda: counters(pair.their).node()["connections"] == 2, "both are there")
        pair.begin()
        pair.pass_on(CONNECTION)  # the stranger's: each of its loops has begun
        environment.result(invoke.id, b'"old"')
        assert caller.answer().body == b'"old"'
        pair.pass_ordered(ENVIRONMENT, CONNECTION)
        pair.control.acknowledged(pair.control.put(KEY, 5))
        caller.send(request[size:])
        environment.serve(b'"new"')
        assert caller.answer().body == b'"new"'
        stranger.post(b"3")
        assert stranger.answer().status == 403
    assert pair.old.left() == 0


def test_a_body_over_tcp_that_is_coming(pair: Pair) -> None:
    with Caller(pair.old, tcp=True) as caller:
        body = b'"' + b"x" * 100_000 + b'"'
        caller.send(
            f"POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\n{FIELD}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        caller.send(body[:60_000])
        await_true(lambda: counters(pair.their).node()["http_requests"] == 1, "its head is read")
        pair.begin()
        pair.pass_all()
        caller.send(body[60_000:])
        environment, invoke = working(pair)
        environment.result(invoke.id, b'"whole"')
        assert caller.answer().body == b'"whole"'
        follows(pair, environment, CONNECTION)


def test_calls_of_the_dispatchers_socket_in_flight(pair: Pair) -> None:
    """Its connection is the new one's at once; what the old one owes on it comes all the same."""
    invoker = pair.old.invoker()
    first = invoker.call(b"1")
    environment, invoke = working(pair)
    pair.begin()
    pass_idle(pair, CONNECTION)
    second = invoker.call(b"2", name="nobody")
    assert invoker.answer(second)[0].status == 404, "by the new one"
    environment.result(invoke.id, b'"old"')
    assert invoker.answer(first)[1] == b'"old"'
    follows(pair, environment)


def test_a_runtime_at_work_follows(tmp_path: Path, loops: tuple[int, int]) -> None:
    """It reports to who gave it the event, and asks there for the next one: which the new one gives."""
    with paired(tmp_path, loops, runtime_api=1) as pair:
        invoker = pair.old.invoker()
        first = invoker.call(b'"one"')
        runtime = Runtime(pair.old)
        runtime.launch()
        connection = runtime.connect()
        event = ask(connection, "GET", "/2018-06-01/runtime/invocation/next")
        pair.begin()
        pass_idle(pair, CONNECTION)
        assert report(connection, event.id, "response", b'"done"').status == 202
        assert invoker.answer(first)[1] == b'"done"'
        begin_next(connection)
        pair.give(pair.next_environment())
        second = invoker.call(b'"two"')
        response = connection.getresponse()
        assert response.read() == b'"two"'
        number = response.headers["Lambda-Runtime-Aws-Request-Id"]
        assert report(connection, number, "response", b'"again"').status == 202
        assert invoker.answer(second)[1] == b'"again"'
        runtime.close()
        assert pair.old.left() == 0


def test_a_runtime_in_the_middle_of_a_stream(tmp_path: Path, loops: tuple[int, int]) -> None:
    with paired(tmp_path, loops, runtime_api=1) as pair, HttpStream(pair.old) as caller:
        caller.begin()
        runtime = Runtime(pair.old)
        with Streaming(runtime) as streaming:
            streaming.begin()
            streaming.chunk(b"one")
            caller.head()
            assert caller.part() == b"one"
            pair.begin()
            pass_idle(pair)
            streaming.chunk(b"two")
            assert caller.part() == b"two"
            assert streaming.end() == 202
            assert caller.rest()[1] == {}
        runtime.close()
