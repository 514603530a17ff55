"""A function that speaks on its channel itself: whatever it says ends at most its own environment, and nobody else's
call is answered by it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import random
import struct
import threading
from typing import Any

import pytest

from bench.node import await_true
from runtimed.client.errors import FunctionFailed
from runtimed.model import wire
from runtimed.model.function import SnapStart, SnapStartApplyOn
from tests.outcomes import Outcome
from tests.sandbox.jail import ROOT
from tests.security.escape.arena import Arena

OWN = b"own-invocation-i"  # stands for the id of the invocation under way
VECTORS = ROOT / "native/tests/vectors"

# Sends packets on a copy of its channel, and then waits for what comes of it.
SENDER = f"""
import array, os, socket, threading
OWN = {OWN!r}
def send(packets, number, fd=3):
    with socket.socket(fileno=os.dup(fd)) as channel:
        channel.setblocking(True)
        for packet in packets:
            channel.send(packet.replace(OWN, number))
def handler(event, context):
    number = bytes.fromhex(context.aws_request_id.replace("-", ""))
    packets = [bytes.fromhex(packet) for packet in event["packets"]]
    if event.get("later"):
        def later():
            while not replied.wait(0.001):
                pass
            send(packets, number)
        threading.Thread(target=later, daemon=True).start()
        return "replied"
    try:
        send(packets, number)
    except OSError as error:
        return str(error)
    threading.Event().wait(event.get("wait", 20))
    return "nothing came of it"
"""


def result(number: bytes = OWN, body: bytes = b'"hi"', **fields: Any) -> bytes:
    return wire.encode(wire.Result(id=number, **{"total": len(body), "body": body, **fields}))


def hostile() -> dict[str, list[bytes]]:
    """Every message of the protocol, well made and cut short; lengths that lie; noise."""
    cases = {f"vector {path.name}": [path.read_bytes()] for path in sorted(VECTORS.glob("*.bin"))}
    whole = result()
    cases |= {f"cut at {n}": [whole[:n]] for n in range(1, len(whole), 7)}
    noise = random.Random(20)
    cases |= {f"noise of {n}": [noise.randbytes(n)] for n in (1, 31, 32, 33, 400, 65536, wire.MESSAGE_MAX + 1)}
    for at in range(len(whole) - 8, len(whole) - 4):  # the body's length
        cases[f"length's byte {at}"] = [whole[:at] + b"\xff" + whole[at + 1 :]]
    cases |= {
        "more than announced": [result(total=1)],
        "announced and nothing": [result(body=b"", total=9)],
        "for another": [result(b"\0" * 16)],
        "result in result": [result(total=9), result()],
        "out of order": [result(total=9), wire.encode(wire.Ready())],
        "chunk too many": [result(total=5), wire.encode(wire.Chunk(data=b"xx"))],
        "chunk alone": [wire.encode(wire.Chunk(data=b"x"))],
        "an init again": [wire.encode(wire.InitDone())],
        "unknown type": [struct.pack("<HBBIIIQQ", 60000, 1, 0, 0, 0, 0, 0, 0)],
    }
    return cases


def packets(case: list[bytes]) -> dict[str, Any]:
    return {"packets": [packet.hex() for packet in case]}


@pytest.mark.case("escape", "garbage on the channel: every message, cut short, lying lengths, noise, out of order")
def test_garbage(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh(SENDER)
    cases = hostile()
    for what, case in cases.items():
        with pytest.raises(FunctionFailed) as failed:
            arena.call(name, packets(case)).raise_for_error()
        assert failed.value.error_type == "Sandbox.Failure", what
        assert "broke the channel's protocol" in failed.value.error_message, what
    outcome(f"{len(cases)} sorts: Sandbox.Failure for its own caller, the environment is replaced")


@pytest.mark.case("escape", "garbage on the channel while a snapshot of the environment is being made")
@pytest.mark.parametrize("what", ["noise of 400", "for another", "announced and nothing"])
def test_one_that_is_copied(arena: Arena, outcome: Outcome, what: str) -> None:
    """From its hook, so at the last moment before its snapshot; it, and nobody else, is answered for."""
    packets = [packet.hex() for packet in hostile()[what]]
    name = arena.fresh(
        SENDER + "from snapshot_restore_py import register_before_snapshot\n"
        f"register_before_snapshot(lambda: send([bytes.fromhex(packet) for packet in {packets}], bytes(16)))",
        snap_start=SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS),
    )
    for _ in range(2):
        error = arena.call(name, {"packets": [], "wait": 0}).error()
        assert error is not None
        assert error.error_type in ("Sandbox.Failure", "Runtime.ExitError"), error
    outcome("its calls fail as Sandbox.Failure; no other function notices")


def test_mutations_never_reach_another(arena: Arena) -> None:
    """Single bytes changed anywhere: whatever comes of it, it is an answer, and the next call gets its own."""
    name = arena.fresh(SENDER)
    chance = random.Random(4)
    for _ in range(60):
        packet = bytearray(result(error=1, error_type="T"))
        packet[chance.randrange(len(packet))] ^= 1 << chance.randrange(8)
        arena.call(name, {**packets([bytes(packet)]), "wait": 0.05})
    assert arena.call(name, {"packets": [], "wait": 0}).value == "nothing came of it"


@pytest.mark.case("escape", "a second result, a result while idle, a result for a call that another function has")
def test_results_that_nobody_asked_for(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh(SENDER)
    # Its own call it may answer itself; what it says twice is not the next call's answer.
    forged = result(body=b'"forged"')
    assert arena.call(name, packets([forged, forged])).value == "forged"
    assert arena.call(name, {"packets": [], "wait": 0}).value == "nothing came of it"

    slow = arena.fresh("import time\ndef handler(event, context):\n    time.sleep(1)\n    return 'slow and right'")
    answers: list[Any] = []
    thread = threading.Thread(target=lambda: answers.append(arena.call(slow).value))
    thread.start()
    ids: list[str] = []

    def has_started() -> bool:
        ids[:] = [event.request_id for event in arena.client.logs(slow) if event.request_id]
        return bool(ids)

    await_true(has_started, 30, "the slow call's START")
    number = bytes.fromhex(ids[0].replace("-", ""))
    assert arena.call(name, packets([result(number, b'"stolen"')])).failed
    thread.join()
    assert answers == ["slow and right"]
    outcome("only its own call can be answered by it, and once; anything else ends the environment")


@pytest.mark.case("escape", "the channel closed, shut down, replaced by dup2, from the handler and from init")
@pytest.mark.parametrize(
    ("deed", "error_type"),
    [
        ("os.close(3)", "Runtime.ExitError"),
        ("os.closerange(3, 1024)", "Runtime.ExitError"),
        ("os.dup2(1, 3)", "Runtime.ExitError"),
        ("os.dup2(os.open('/dev/zero', os.O_RDWR), 3)", "Runtime.ExitError"),
        ("socket.socket(fileno=os.dup(3)).shutdown(socket.SHUT_RDWR)", "Runtime.ExitError"),
        ("socket.socket(fileno=os.dup(3)).send(b'')", "Sandbox.Failure"),
        ("os.close(3); signal.pause()", "Sandbox.Failure"),
    ],
)
def test_channel_taken_away(arena: Arena, outcome: Outcome, deed: str, error_type: str) -> None:
    handler = f"def handler(event, context):\n    {deed}\n    signal.pause() if sends else None"
    for source in (
        f"import os, signal, socket\nsends = {'send' in deed}\n{handler}",
        f"import os, signal, socket\n{deed}\ndef handler(event, context):\n    pass",
    ):
        error = arena.call(arena.fresh(source)).error()
        assert error is not None
        assert error.error_type in (error_type, "Runtime.ExitError"), deed
    outcome("the caller gets Runtime.ExitError or Sandbox.Failure, within a second")


@pytest.mark.case("escape", "descriptors passed to the dispatcher (SCM_RIGHTS)")
def test_descriptors_are_not_taken(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh("""
import array, os, socket
def handler(event, context):
    channel = socket.socket(fileno=os.dup(3))
    fds = array.array("i", [os.memfd_create("gift") for _ in range(100)]).tobytes()
    sent = 0
    for _ in range(50):
        try:
            channel.sendmsg([b"?" * 40], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])
            sent += 1
        except PermissionError:
            pass
    return sent
""")
    answer = arena.call(name)
    assert answer.failed or answer.value == 0
    for role, pid in arena.node.roles().items():
        for fd in pathlib.Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed meanwhile
                assert "gift" not in os.readlink(fd), role
    outcome("refused by the socket where the kernel can (SO_PASSRIGHTS), dropped unseen elsewhere; none arrives")


@pytest.mark.case("escape", "an announced answer of 4 GiB, sent as fast as it goes, and an event that is never read")
def test_endless_answer(arena: Arena, outcome: Outcome) -> None:
    """What is too large is read and forgotten; meanwhile others are answered."""
    name = arena.fresh(f"""
import os, socket
OWN, FIRST, CHUNK = {OWN!r}, {result(total=0xFFFFFFFF)!r}, {wire.encode(wire.Chunk(data=bytes(65536)))!r}
def handler(event, context):
    channel = socket.socket(fileno=os.dup(3))
    channel.setblocking(True)
    channel.send(FIRST.replace(OWN, bytes.fromhex(context.aws_request_id.replace("-", ""))))
    for _ in range(event):
        channel.send(CHUNK)
    os._exit(3)
""")
    failures: list[Any] = []
    thread = threading.Thread(target=lambda: failures.append(arena.call(name, 4000).error()))
    thread.start()
    calls = 0
    while thread.is_alive():
        arena.victim()
        calls += 1
    thread.join()
    assert failures[0].error_type == "Runtime.ExitError"
    assert calls > 1
    outcome("250 MB are read and forgotten without keeping others waiting; then the environment's end is told")
