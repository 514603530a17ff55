"""Peers that break HTTP/2's rules or wear them out, against the dispatcher; after each of them others are served."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from runtimed.model import wire
from tests.integration.dispatch_stage import PATIENCE, Control, Stage, await_true, counters, staged
from tests.integration.grpc_caller import CALM, PREFACE, Client, Peer

NO_ERROR, REFUSED_STREAM = 0, 7


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Iterator[Control]:
    """Afterwards another caller is served, and the counters agree."""
    control = stage.ready(max_environments=2, max_waiting=5000)
    yield control
    with Client(stage) as client:
        assert client.start(invocation_type=3).result(PATIENCE).status_code == 204
    page = counters(control)
    await_true(lambda: page.node()["calls_open"] == 0, "no call is open")
    await_true(lambda: page.node()["payload_bytes"] == 0, "no memory is charged")
    node = page.node()
    answers = node["answers_success"] + node["answers_function_error"] + node["answers_refused"]
    assert node["calls"] == answers + node["abandoned"]
    page.close()


@pytest.fixture
def peer(stage: Stage, control: Control) -> Iterator[Peer]:
    with Peer(stage) as peer:
        yield peer


# ---- the preface -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1,), (2, 3), (18, 23), tuple(range(1, 24))])
def test_a_preface_in_pieces(stage: Stage, control: Control, cuts: tuple[int, ...]) -> None:
    with Peer(stage, hello=False) as peer:
        for first, last in zip((0, *cuts), (*cuts, len(PREFACE)), strict=True):
            peer.raw(PREFACE[first:last])
            assert peer.sock.getpeername()
        peer.send(SettingsFrame(0))
        peer.call(1, b"{")
        assert peer.trailers(1)["runtimed-error-code"] == "InvalidRequestContentException"


def test_what_only_resembles_the_preface_is_http1(stage: Stage, control: Control) -> None:
    with Peer(stage, hello=False) as peer:
        peer.raw(PREFACE[:10])
        peer.raw(b"/9.9\r\n\r\n")
        assert peer.sock.recv(64).startswith(b"HTTP/1.1 ")


# ---- calls that are refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"content_type": "application/json"}, None),
        ({"content_type": ""}, None),
        ({"method": "GET"}, None),
        ({"content_type": "application/grpc+json"}, None),
        ({"path": "/runtimed.v1.Invocations/Other"}, "12"),
        ({"path": "/other.Service/Invoke"}, "12"),
        ({"grpc_encoding": "gzip"}, "12"),
        ({"grpc_timeout": "1"}, "13"),
        ({"x_a": "a" * 15000, "x_b": "b" * 15000, "x_c": "c" * 15000, "x_d": "d" * 15000, "x_e": "e" * 9000}, "8"),
    ],
)
def test_headers(peer: Peer, changes: dict[str, str], status: str | None) -> None:
    block = peer.headers(**changes)
    pieces = [block[at : at + 16000] for at in range(0, len(block), 16000)]
    frames = [HeadersFrame(1, pieces[0]), *(ContinuationFrame(1, piece) for piece in pieces[1:])]
    frames[-1].flags.add("END_HEADERS")
    peer.send(*frames, peer.message(1))
    fields = peer.trailers(1)
    assert (fields[":status"], fields.get("grpc-status")) == ("415" if status is None else "200", status)
    if status == "12":
        assert fields["grpc-accept-encoding"] == "identity"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"", "13"),
        (b"\0\0\0", "13"),
        (b"\0\0\0\0\x05abc", "13"),
        (b"\x01\0\0\0\0", "12"),
        (b"\x02\0\0\0\0", "13"),
        (b"\0\0\0\0\x01\xff", "3"),
        (b"\0\0\0\0\0" * 2, "13"),
        (b"\0\xff\xff\xff\xff" + b"a" * 100, "3"),
    ],
)
def test_messages(peer: Peer, data: bytes, status: str) -> None:
    peer.send(peer.opening(1), DataFrame(1, data, flags=["END_STREAM"]))
    fields = peer.trailers(1)
    if data == b"\0\0\0\0\0" * 2:
        assert fields["grpc-status"] in ("13", "3")
    else:
        assert fields["grpc-status"] == status


def test_a_message_byte_by_byte(peer: Peer) -> None:
    frame = peer.message(1, b"{")
    peer.send(peer.opening(1), *(DataFrame(1, frame.data[at : at + 1]) for at in range(len(frame.data))))
    peer.send(DataFrame(1, b"", flags=["END_STREAM"]))
    assert peer.trailers(1)["runtimed-error-code"] == "InvalidRequestContentException"


# ---- floods ------------------------------------------------------------------------------------------------------


def drown(peer: Peer, data: bytes, times: int) -> int:
    """Sends it so many times, or until nobody takes it; the error of the GOAWAY that comes."""
    try:
        for _ in range(times):
            peer.raw(data)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return peer.goaway()


def test_rapid_reset(stage: Stage, control: Control, peer: Peer) -> None:
    page = counters(control)
    frames = b"".join(
        peer.opening(stream).serialize() + RstStreamFrame(stream, 8).serialize() for stream in range(1, 2 * 3000, 2)
    )
    assert drown(peer, frames, 1) == CALM
    assert page.node()["calls"] < 2500
    page.close()


def test_resets_that_the_node_is_made_to_send(stage: Stage, control: Control, peer: Peer) -> None:
    """Faults in streams, each of which costs a reset: the same allowance."""
    frames = b"".join(
        peer.opening(stream).serialize() + WindowUpdateFrame(stream, 2**31 - 1).serialize()
        for stream in range(1, 2 * 3000, 2)
    )
    assert drown(peer, frames, 1) == CALM


def test_invocations_go_on_after_resets(stage: Stage, control: Control, peer: Peer) -> None:
    """What runs counts although its stream is gone; what only waits does not."""
    page = counters(control)
    for stream in (1, 3):
        peer.call(stream)
    environments = [stage.launch(), stage.launch()]
    for environment in environments:
        environment.start()
    running = [environment.invoke()[0] for environment in environments]
    peer.send(RstStreamFrame(1, 8), RstStreamFrame(3, 8))
    await_true(lambda: page.node()["cancelled"] == 2, "both are released")
    assert page.node()["invocations_in_flight"] == 2
    for environment, invoke in zip(environments, running, strict=True):
        environment.result(invoke.id)
    await_true(lambda: page.node()["invocations_in_flight"] == 0, "they end")
    page.close()


def test_continuations_without_end(peer: Peer) -> None:
    opening = peer.opening(1, flags=()).serialize()
    assert drown(peer, opening + ContinuationFrame(1, b"").serialize() * 100, 1) == CALM


@pytest.mark.parametrize(
    "frame",
    [
        SettingsFrame(0, settings={4: 65535}).serialize(),
        PingFrame(0, b"12345678").serialize(),
        PriorityFrame(1, stream_weight=3).serialize(),
    ],
    ids=["settings", "pings", "priorities"],
)
def test_idle_frames(peer: Peer, frame: bytes) -> None:
    assert drown(peer, frame * 500, 10) == CALM


def test_empty_data(peer: Peer) -> None:
    peer.send(peer.opening(1))
    assert drown(peer, DataFrame(1, b"").serialize() * 500, 10) == CALM


def test_more_streams_than_allowed(peer: Peer) -> None:
    """1,000 are open; the one above is refused as not begun, the others stay."""
    peer.send(*(peer.opening(stream) for stream in range(1, 2001, 2)))
    peer.send(peer.opening(2001))
    refused = peer.until(RstStreamFrame)
    assert (refused.stream_id, refused.error_code) == (2001, REFUSED_STREAM)


def test_broken_compression(peer: Peer) -> None:
    peer.send(HeadersFrame(1, b"\xff\xff\xff\xff\xff\xff", flags=["END_HEADERS"]))
    assert peer.goaway() == 9  # COMPRESSION_ERROR


# ---- windows -----------------------------------------------------------------------------------------------------


def test_an_answer_waits_for_its_window(stage: Stage, control: Control) -> None:
    """The environment is free meanwhile, the answer is charged, a reset frees it."""
    page = counters(control)
    with Peer(stage, hello=False) as peer:
        peer.raw(PREFACE)
        peer.send(SettingsFrame(0, settings={SettingsFrame.INITIAL_WINDOW_SIZE: 0}))
        peer.call(1)
        environment = stage.launch()
        environment.start()
        environment.serve(json.dumps("a" * 300_000).encode())
        await_true(lambda: page.node()["invocations_in_flight"] == 0, "the environment is free")
        assert page.node()["payload_bytes"] > 300_000
        peer.send(WindowUpdateFrame(1, 1000))
        received = len(peer.until(DataFrame).data)
        assert received == 1000
        peer.send(RstStreamFrame(1, 8))
        await_true(lambda: page.node()["payload_bytes"] == 0, "its memory is free")
    page.close()


def test_no_window_beyond_what_is_taken(peer: Peer) -> None:
    """The peer gets room for what was read, not for what was announced."""
    while "ACK" in peer.until(SettingsFrame).flags:
        pass  # the node's own tell how large its windows are: before they are acknowledged they are 65,535 bytes
    head = b"\0" + struct.pack(">I", 6 << 20)
    peer.send(peer.opening(1), DataFrame(1, head))
    for _ in range(16):
        peer.send(DataFrame(1, b"a" * 16000))
    given = 0
    while given < 128_000:
        frame = peer.until(WindowUpdateFrame)
        given += frame.window_increment if frame.stream_id == 1 else 0
    assert given <= 16 * 16000 + len(head)
    peer.send(RstStreamFrame(1, 8))


# ---- the end -----------------------------------------------------------------------------------------------------


def test_a_drain_says_goodbye_twice(stage: Stage) -> None:
    control = stage.ready()
    environment = stage.warm(stage.invoker())
    with Peer(stage) as peer:
        peer.call(1)
        invoke, _ = environment.invoke()
        control.close()
        stage.launcher.send(wire.Drain())
        notice = peer.until(GoAwayFrame)
        assert (notice.last_stream_id, notice.error_code) == (2**31 - 1, NO_ERROR)
        ping = peer.until(PingFrame)
        peer.send(PingFrame(0, ping.opaque_data, flags=["ACK"]))
        last = peer.until(GoAwayFrame)
        assert (last.last_stream_id, last.error_code) == (1, NO_ERROR)
        environment.result(invoke.id, b"7")
        assert b"7" in peer.until(DataFrame).data
        assert peer.trailers(1)["grpc-status"] == "0"
    assert stage.left() == 0
