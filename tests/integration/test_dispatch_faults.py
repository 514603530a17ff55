"""Random faults from all sides at once, and what must hold all the same: each call is answered exactly once, every slot
and every byte comes back, the counters agree with each other, and the dispatcher serves as before afterwards.
"""

from __future__ import annotations

import contextlib
import os
import random
import selectors
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PATIENCE,
    ROUTE,
    UNSET,
    Control,
    Environment,
    Invoker,
    Stage,
    counters,
    staged,
    target,
)

SECONDS = 3.0
ENOUGH = 50  # invocations that are answered by their environment, on however slow a machine
PATIENT = {"timeout_ms": 60_000, "init_timeout_ms": 60_000}
STATUSES = {200, 204, 400, 404, 429, 499, 500, 503}


class Actor(Environment):
    """An environment with a mind of its own."""

    def __init__(self, faults: Faults, number: int) -> None:
        super().__init__(faults.stage.launcher, number, faults.stage.directory, peak=1 << 20, frozen="0\n")
        self.faults, self.gone, self.deaf = faults, False, False
        self.body, self.number_of_call, self.total = bytearray(), b"", 0

    def readable(self) -> None:
        try:
            _, message = self.next()
        except (EOFError, ConnectionError):
            self.faults.unwatch(self)
            return
        if isinstance(message, wire.Start):
            with contextlib.suppress(OSError):
                self.initialise()
        elif isinstance(message, wire.Invoke):
            self.body, self.number_of_call, self.total = bytearray(message.body), message.id, message.total
            self.whole()
        elif isinstance(message, wire.Chunk):
            self.body += message.data
            self.whole()

    def whole(self) -> None:
        if len(self.body) == self.total and not self.deaf:
            with contextlib.suppress(OSError):  # it may have been ended meanwhile
                if self.faults.wild:
                    self.act()
                else:  # also who was there before the peace
                    self.result(self.number_of_call)

    def initialise(self) -> None:
        pick = self.faults.rng.random()
        if pick < 0.06:
            self.send(wire.InitError(error_type="Runtime.ImportModuleError", body=b"{}"))
        elif pick < 0.12:
            self.leave(1 << 8)
        elif pick < 0.16:
            self.raw(b"nonsense")
        elif pick < 0.22:
            self.deaf = True  # the init limit
        else:
            self.print("ready\n")
            self.send(wire.InitDone())

    def act(self) -> None:
        rng, number = self.faults.rng, self.number_of_call
        if rng.random() < 0.3:
            self.print("line\n" * rng.randint(1, 20) + "rest" * rng.randint(0, 1))
        acts: list[tuple[float, Callable[[], Any]]] = [
            (0.03, lambda: self.leave(rng.choice([0, 3 << 8, 9, 11]))),
            (0.02, lambda: self.leave(9, oom=1)),
            (0.03, lambda: self.raw(os.urandom(rng.randint(1, 200)))),
            (0.02, lambda: self.result(bytes(16))),
            (0.02, lambda: setattr(self, "deaf", True)),
            (0.02, self.faults_hang_up),
            (0.02, lambda: self.raw(wire.encode(wire.Result(id=number, total=200_000, body=b"x" * 1000)))),
            (0.10, lambda: self.result(number, b"y" * rng.randint(65536, 400_000))),
            (0.05, lambda: self.result(number, b'{"errorType":"E"}', error="E")),
            (0.10, self.late),
            (0.15, self.in_parts),
        ]
        pick = rng.random()
        for share, act in acts:
            pick -= share
            if pick < 0:
                act()
                return
        self.result(number, bytes(self.body))

    def late(self) -> None:
        """The answer now, readiness later or never."""
        self.result(self.number_of_call, ready=False)
        if self.faults.rng.random() < 0.8:
            self.send(wire.Ready())

    def in_parts(self) -> None:
        """As a stream, which may break off anywhere."""
        rng = self.faults.rng
        self.send(wire.StreamHead(id=self.number_of_call, data=b"h" * rng.choice([0, 10, 65536])))
        for _ in range(rng.randint(0, 3)):
            self.send(wire.StreamChunk(data=b"c" * rng.choice([1, 1000, 30_000])))
        pick = rng.random()
        if pick < 0.1:
            self.leave(rng.choice([0, 9]))
        elif pick < 0.2:
            self.deaf = True
        elif pick < 0.3:
            self.result(self.number_of_call)
        elif pick < 0.5:
            self.send(wire.StreamEnd(error=1, error_type="E", body=b"{}"), flags=wire.HeaderFlags.READY)
        else:
            self.send(wire.StreamEnd(), flags=wire.HeaderFlags.READY)

    def faults_hang_up(self) -> None:
        self.faults.unwatch(self)
        self.hang_up()

    def leave(self, status: int, **fields: Any) -> None:
        if not self.gone:
            self.gone = True
            self.faults.unwatch(self)
            self.exit(status, **fields)


class Caller(Invoker):
    """An invoker that counts its answers."""

    def __init__(self, faults: Faults) -> None:
        super().__init__(faults.stage.path)
        self.faults = faults
        self.open: dict[int, int] = {}  # call → bytes of its answer's body still to come, -1: all

    def readable(self) -> None:
        try:
            header, message = self.next()
        except (EOFError, ConnectionError):
            raise AssertionError("the dispatcher dropped a caller that did nothing wrong") from None
        assert header.object in self.open, f"an answer too many for {header.object}"
        if isinstance(message, wire.Answer):
            assert self.open[header.object] == -1
            assert message.status in STATUSES
            self.open[header.object] = message.total - len(message.body)
            self.faults.answers[message.status] = self.faults.answers.get(message.status, 0) + 1
        else:
            assert isinstance(message, wire.AnswerChunk)
            self.open[header.object] -= len(message.data)
        if self.open[header.object] == 0:
            del self.open[header.object]

    def begin(self) -> None:
        rng = self.faults.rng
        size = rng.choice([0, 10, 1000, 65534, 100_000]) if rng.random() < 0.3 else 10
        payload = b'"' + b"p" * size + b'"' if rng.random() < 0.97 else b"{not json"
        flags = rng.choice([0, 0, 0, wire.CallFlags.LOG_TAIL, wire.CallFlags.DRY_RUN])
        name = "f" if rng.random() < 0.97 else "g"
        number = self.call(payload, name=name, flags=int(flags))
        self.open[number] = -1
        if rng.random() < 0.05:
            self.send(wire.Cancel(), object=number)


class Faults:
    """Runs everything in one thread: whatever is readable is read, then something happens."""

    def __init__(self, stage: Stage, seed: int) -> None:
        self.stage, self.rng = stage, random.Random(seed)
        self.selector = selectors.DefaultSelector()
        self.environments: dict[int, Actor] = {}
        self.callers: list[Caller] = []
        self.answers: dict[int, int] = {}
        self.generation = 10
        self.wild = True
        self.control = stage.ready(**self.limits())
        self.watch(stage.launcher, self.launcher_readable)

    def limits(self) -> dict[str, Any]:
        return {"max_environments": 4, "max_waiting": 8, "timeout_ms": 300, "init_timeout_ms": 150}

    def watch(self, link: Any, readable: Callable[[], None]) -> None:
        self.selector.register(link.sock, selectors.EVENT_READ, readable)

    def unwatch(self, link: Any) -> None:
        if link.sock.fileno() >= 0 and link.sock.fileno() in self.selector.get_map():
            self.selector.unregister(link.sock)

    def launcher_readable(self) -> None:
        header, message = self.stage.launcher.any()
        if isinstance(message, wire.Launch):
            self.launch(header.object)
        elif isinstance(message, wire.End) and header.object in self.environments:
            self.environments[header.object].leave(int(signal.SIGKILL))

    def launch(self, number: int) -> None:
        pick = self.rng.random() if self.wild else 1
        if pick < 0.1:
            retryable = self.rng.randint(0, 1)
            self.stage.launcher.send(wire.LaunchFailed(retryable=retryable, error=11, step="x"), object=number)
            return
        actor = Actor(self, number)
        if not self.wild:
            actor.initialise = lambda: actor.send(wire.InitDone())  # type: ignore[method-assign]
        self.environments[number] = actor
        self.stage.links.append(actor)
        self.watch(actor, actor.readable)
        if pick < 0.13:
            actor.leave(1 << 8, step="mount", error=1)

    def connect(self) -> None:
        caller = Caller(self)
        self.callers.append(caller)
        self.stage.links.append(caller)
        self.watch(caller, caller.readable)

    def disconnect(self) -> None:
        caller = self.rng.choice(self.callers)
        self.callers.remove(caller)
        self.unwatch(caller)
        caller.close()

    def retire(self) -> None:
        if self.environments:
            number = self.rng.choice(list(self.environments))
            self.control.put(wire.EnvRetire(), number, 0)

    def reconnect(self) -> None:
        """The control plane is another one, and says everything again."""
        self.control = self.stage.control()
        self.control.greet()
        self.control.synchronise((1, target(**self.limits())), (1, ROUTE), generation=self.generation)

    def change(self) -> None:
        self.generation += 1
        limits = {**self.limits(), "max_concurrency": self.rng.choice([UNSET, UNSET, 3])}
        self.control.put(target(**limits), 1, self.generation)

    def step(self) -> None:
        for key, _ in self.selector.select(0.001):
            if key.fileobj.fileno() >= 0:  # type: ignore[union-attr]
                key.data()
        if not self.wild:
            return
        pick = self.rng.random()
        if pick < 0.5:
            self.rng.choice(self.callers).begin()
        elif pick < 0.502:
            self.disconnect()
            self.connect()
        elif pick < 0.51:
            self.retire()
        elif pick < 0.515:
            self.change()
        elif pick < 0.517:
            self.reconnect()
        drain(self.control)

    def run(self, seconds: float) -> None:
        for _ in range(6):
            self.connect()
        begun = time.monotonic()
        while (passed := time.monotonic() - begun) < seconds or self.answers.get(200, 0) <= ENOUGH:
            assert passed < PATIENCE, self.answers
            self.step()
        self.wild = False
        deadline = time.monotonic() + PATIENCE
        while any(caller.open for caller in self.callers):
            assert time.monotonic() < deadline, [caller.open for caller in self.callers]
            self.step()


def drain(control: Control) -> None:
    while not control.silent(0):
        control.level(wire.Message)


@pytest.mark.parametrize("seed", range(6))
def test_random_faults(tmp_path: Path, seed: int) -> None:
    with staged(tmp_path) as stage:
        faults = Faults(stage, seed)
        faults.run(SECONDS)
        page = counters(faults.control)
        deadline = time.monotonic() + PATIENCE
        while any(page.node()[name] for name in ("invocations_in_flight", "waiting", "calls_open", "payload_bytes")):
            assert time.monotonic() < deadline, page.node()
            faults.step()
        node = page.node()
        answered = node["answers_success"] + node["answers_function_error"] + node["answers_refused"]
        assert node["calls"] == answered + node["abandoned"]
        assert sum(faults.answers.values()) <= answered
        assert node["logic_errors"] == 0
        assert node["connections_dropped"] == 0
        assert node["environments"] == node["launches"] - node["environments_ended"]
        assert node["log_records_dropped"] == 0
        await_no_tokens(faults)
        serves_as_before(faults)


def await_no_tokens(faults: Faults) -> None:
    """A limit that is put again is told with what is in use. From here on nobody is late."""
    control = faults.stage.control()
    control.greet()
    control.synchronise(
        (0, wire.PutLimit(concurrency=1000)), (1, target(**faults.limits() | PATIENT)), (1, ROUTE), generation=1 << 40
    )
    _, state = control.level(wire.LimitState)
    assert (state.in_use, state.limit) == (0, 1000)
    faults.control = control


def serves_as_before(faults: Faults) -> None:
    caller = faults.callers[0]
    before = faults.answers.get(200, 0)
    for _ in range(4):
        number = caller.call(b"{}")
        caller.open[number] = -1
    deadline = time.monotonic() + PATIENCE
    while caller.open:
        assert time.monotonic() < deadline
        faults.step()
    assert faults.answers[200] == before + 4
