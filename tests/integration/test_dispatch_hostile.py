"""Environments that break the channel's protocol: each is ended, its caller is told, nobody else notices."""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import Environment, Stage, await_true, counters, staged, target
from tests.integration.test_dispatch_arena import Sharer, event

OTHER = bytes(range(100, 116))


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as made:
        yield made


def header(kind: int, version: int = 1, reserved: int = 0) -> bytes:
    return struct.pack("<HBBIIIQQ", kind, version, 0, 0, 0, reserved, 0, 0)


def result(number: bytes, total: int, body: bytes) -> bytes:
    return wire.encode(wire.Result(id=number, total=total, body=body))


# What a busy environment may not send, made from the id of its invocation.
VIOLATIONS: dict[str, Callable[[bytes], list[bytes]]] = {
    "noise": lambda _: [b"\xff" * 100],
    "one byte": lambda _: [b"x"],
    "a header cut short": lambda _: [header(wire.Result.TYPE)[:31]],
    "another version": lambda _: [header(wire.Result.TYPE, version=2)],
    "reserved bits": lambda _: [header(wire.Ready.TYPE, reserved=1)],
    "an unknown type": lambda _: [header(60000)],
    "a message of the control plane": lambda _: [wire.encode(wire.Drain())],
    "a message of an invoker": lambda _: [wire.encode(wire.Cancel())],
    "a message of its own dispatcher": lambda number: [wire.encode(wire.Invoke(id=number))],
    "a message above the limit": lambda _: [b"y" * 90000],
    "INIT_DONE again": lambda _: [wire.encode(wire.InitDone())],
    "INIT_ERROR": lambda _: [wire.encode(wire.InitError(error_type="E", body=b"{}"))],
    "READY": lambda _: [wire.encode(wire.Ready())],
    "CHUNK without RESULT": lambda _: [wire.encode(wire.Chunk(data=b"x"))],
    "RESULT of another": lambda _: [result(OTHER, 2, b"{}")],
    "more than announced": lambda number: [result(number, 1, b"{}")],
    "announced and nothing": lambda number: [result(number, 2, b"")],
    "a chunk too large": lambda number: [result(number, 3, b"{}"), wire.encode(wire.Chunk(data=b"xx"))],
    "an empty chunk": lambda number: [result(number, 3, b"{}"), wire.encode(wire.Chunk())],
    "RESULT inside RESULT": lambda number: [result(number, 3, b"{}"), result(number, 2, b"{}")],
    "READY inside RESULT": lambda number: [result(number, 3, b"{}"), wire.encode(wire.Ready())],
    "bytes left over": lambda number: [result(number, 2, b"{}") + b"x"],
    "NUL in a string": lambda number: [wire.encode(wire.Result(id=number, error_type="?A?")).replace(b"?A?", b"?\0?")],
}


def told(body: bytes) -> tuple[str, str]:
    error = json.loads(body)
    return error["errorType"], error["errorMessage"]


@pytest.mark.parametrize("name", VIOLATIONS)
def test_violation_while_busy(stage: Stage, name: str) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    bystander = stage.invoker()
    invoker.call()
    invoke, _ = environment.invoke()
    bystander.call()
    other = stage.launch()
    other.start()
    watched, _ = other.invoke()
    for packet in VIOLATIONS[name](invoke.id):
        environment.raw(packet)
    answer, body = invoker.answer()
    assert (answer.status, answer.outcome) == (200, wire.Outcome.FUNCTION_ERROR)
    kind, message = told(body)
    assert kind == "Sandbox.Failure"
    assert "protocol" in message
    assert stage.ended(environment) == wire.EndReason.PROTOCOL
    other.result(watched.id)
    assert bystander.answer()[0].outcome == wire.Outcome.SUCCESS
    node = counters(control).node()
    assert node["violations"] == 1
    assert node["logic_errors"] == 0


@pytest.mark.parametrize("message", [wire.Ready(), wire.InitDone(), wire.Result(), wire.Chunk(data=b"x")])
def test_violation_while_idle(stage: Stage, message: wire.Message) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    environment.send(message)
    assert stage.ended(environment) == wire.EndReason.PROTOCOL
    assert invoker.silent()


def test_violation_during_init(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    invoker.call()
    environment = stage.launch()
    environment.expect(wire.Start)
    environment.send(wire.Ready())
    assert told(invoker.answer()[1])[0] == "Sandbox.Failure"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


def test_violation_after_the_answer(stage: Stage) -> None:
    """The caller has its answer; a second one is not for it."""
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.result(invoke.id, b"1", ready=False)
    environment.result(invoke.id, b"2", ready=False)
    assert invoker.answer()[1] == b"1"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL
    assert invoker.silent()


def test_result_before_the_event_was_read(stage: Stage) -> None:
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call(b'"' + b"x" * (4 << 20) + b'"')
    _, invoke = environment.expect(wire.Invoke)
    environment.result(invoke.id)
    assert told(invoker.answer()[1])[0] == "Sandbox.Failure"
    assert stage.ended(environment) == wire.EndReason.PROTOCOL


def test_event_that_is_never_read_times_out(stage: Stage) -> None:
    control = stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    control.acknowledged(control.put(target(timeout_ms=200), 1, 2))
    invoker.call(b'"' + b"x" * (4 << 20) + b'"')
    assert told(invoker.answer()[1])[0] == "Sandbox.Timedout"
    assert stage.ended(environment) == wire.EndReason.TIMEOUT


def test_descriptors_are_not_taken(stage: Stage) -> None:
    """Neither a refusal by the kernel nor a silent drop leaves one open in the dispatcher."""
    stage.ready()
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    before = stage.descriptors()
    read, write = os.pipe()
    invoker.call()
    invoke, _ = environment.invoke()
    packet = wire.encode(wire.Result(id=invoke.id, total=2, body=b"{}"), flags=wire.HeaderFlags.READY)
    try:
        socket.send_fds(environment.sock, [packet], [write] * 8)
    except PermissionError:
        environment.raw(packet)
    assert invoker.answer()[0].outcome == wire.Outcome.SUCCESS
    os.close(write)
    os.set_blocking(read, False)
    assert os.read(read, 1) == b"", "no writer is left"
    os.close(read)
    await_true(lambda: stage.descriptors() <= before, "none more than before")


def memfd(seals: int) -> int:
    fd = os.memfd_create("forged", os.MFD_ALLOW_SEALING | os.MFD_CLOEXEC)
    os.ftruncate(fd, 16 << 20)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, seals)
    return fd


def io_uring() -> int:
    """Where the kernel lets nobody have one: a pidfd."""
    fd: int = ctypes.CDLL(None, use_errno=True).syscall(425, 1, ctypes.create_string_buffer(120))
    return fd if fd >= 0 else os.pidfd_open(os.getpid())


FORGED: dict[str, Callable[[], int]] = {
    "an eventfd": lambda: os.eventfd(0),
    "a memfd that may shrink": lambda: memfd(0),
    "another environment's arena": lambda: memfd(fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW),
    "a directory": lambda: os.open("/", os.O_RDONLY | os.O_DIRECTORY),
    "an io_uring": io_uring,
}


@pytest.mark.parametrize("kind", FORGED)
def test_an_arena_is_the_launchers_whatever_else_is_handed_over(stage: Stage, kind: str) -> None:
    """With what says that it is attached, and with the answer that lies in it."""
    stage.ready(timeout_ms=60_000)
    sharer = Sharer(stage, stage.invoker())
    sharer.asked()
    _, invoke = sharer.attach()
    sharer.fill(1 << 20)
    before = stage.descriptors()
    forged = FORGED[kind]()
    attached = wire.encode(wire.Attached())
    said = wire.encode(wire.Result(id=invoke.id, total=1 << 20), flags=wire.HeaderFlags.READY | wire.HeaderFlags.ARENA)
    body = event(1 << 20)
    assert sharer.memory is not None
    sharer.memory[: len(body)] = body
    for packet in (attached, said):
        try:
            socket.send_fds(sharer.environment.sock, [packet], [forged])
        except OSError:  # a kernel that refuses them, or io_uring's of all
            sharer.environment.raw(packet)
    assert sharer.invoker.answer()[1] == body
    await_true(lambda: stage.descriptors() <= before, "none more than before")
    os.close(forged)
    sharer.memory.close()


def pause(stage: Stage) -> None:
    os.kill(stage.pid, signal.SIGSTOP)
    await_true(lambda: Path(f"/proc/{stage.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", "it stands")


def test_who_has_left_is_given_no_other_event(tmp_path: Path) -> None:
    """Its answer and its end arrive together, the end first: the answer counts, and the next event is not lost. In one
    loop, which sees them in that order."""
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="1") as stage:
        left_behind(stage)


def left_behind(stage: Stage) -> None:
    page = counters(stage.ready(max_environments=1, timeout_ms=60_000))
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    first = invoker.call(b"1")
    invoke, _ = environment.invoke()
    second = invoker.call(b"2")
    await_true(lambda: page.node()["waiting"] == 1, "the next one waits")
    pause(stage)
    stage.launcher.send(wire.Exited(status=0), object=environment.number)
    environment.result(invoke.id, b'"first"')
    os.kill(stage.pid, signal.SIGCONT)
    assert invoker.answer(first)[1] == b'"first"'
    after = stage.launch()
    after.start()
    after.serve(b'"second"')
    assert invoker.answer(second)[1] == b'"second"'
    environment.hang_up()
    page.close()


def flood(environment: Environment, packet: bytes, count: int) -> None:
    try:
        for _ in range(count):
            environment.raw(packet)
    except OSError:
        pass


def test_flood_of_packets_ends_one_environment(stage: Stage) -> None:
    stage.ready(keep_alive_ms=600_000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    flood(environment, wire.encode(wire.Chunk(data=b"x" * 60000)), 1000)
    assert stage.ended(environment) == wire.EndReason.PROTOCOL
    invoker.call()
    stage.launch().start()


def test_endless_response_is_bounded_by_its_announcement(stage: Stage) -> None:
    control = stage.ready(timeout_ms=5000)
    invoker = stage.invoker()
    environment = stage.warm(invoker)
    invoker.call()
    invoke, _ = environment.invoke()
    environment.raw(result(invoke.id, 0xFFFFFFFF, b"x" * 65536))
    chunk = wire.encode(wire.Chunk(data=b"x" * 65536))
    for _ in range(200):
        environment.raw(chunk)
    page = counters(control)
    await_true(lambda: page.node()["invocations_in_flight"] == 1, "it is still under way")
    assert page.node()["payload_bytes"] < 1 << 20, "what is too large is not kept"
    assert told(invoker.answer()[1])[0] == "Sandbox.Timedout"
    assert stage.ended(environment) == wire.EndReason.TIMEOUT
