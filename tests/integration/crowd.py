"""A crowd of callers at the dispatcher's sockets, most of them rude, and a ledger of what became of each call.

Every call bears a number, unique in the run. The handlers count what they are given, callers write down what they are
told; whatever does not fit together is a sentence in `Ledger.wrong`. Everything runs in one asyncio loop and draws its
choices from one seeded generator. How callers behave: crowd_callers.py.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import random
import time
from collections import Counter
from pathlib import Path

from msgspec import Struct

from runtimed.model import wire
from tests.integration.dispatch_stage import (
    PATIENCE,
    ROUTE,
    Control,
    Stage,
    await_true,
    counters,
    target,
)

TOKEN = "token-of-the-crowd"
KEY = wire.PutPrincipal(key_id="RTCROWDKEY0000000001", token=hashlib.sha256(TOKEN.encode()).digest(), signing=b"")
SLOW = 0.03  # seconds, of a handler that takes its time
LARGEST_IN_PARTS = 40_000  # what a channel's socket holds, so that no handler waits for its caller
LEAVING = ("die", "cut")
FAILING = {"error": "Mine", "break": "Mine", "endless": "Function.ResponseSizeTooLarge"}
STREAMING = ("flow", "break", "endless")
STREAM_LIMIT = 1 << 20
ENDLESS = 7 << 20  # more than any answer may have, in parts or whole
TARGET = 1
CROWDED = {"max_environments": 12, "max_waiting": 100, "timeout_ms": 60_000, "init_timeout_ms": 60_000}
"""Too little for all of them at once, so that some are throttled; and no time-out of the function's own."""


class Call(Struct):
    """One invocation that a caller asks for."""

    number: int
    do: str = ""
    """What the handler shall do: answer, take its time ("slow"), answer in parts ("parts"), in as many as make it wait
    for its caller ("flow"), fail ("error"), in the middle of them ("break"), go on and on ("endless"), leave at once
    ("die") or after the first part ("cut")."""
    pad: int = 0
    """Bytes of ballast in the event."""
    size: int = 0
    """Bytes of ballast in the result."""

    @property
    def event(self) -> bytes:
        return json.dumps({"n": self.number, "do": self.do, "size": self.size, "pad": "p" * self.pad}).encode()

    @property
    def result(self) -> bytes:
        return json.dumps({"n": self.number, "result": "r" * self.size}).encode()


class Ledger:
    """What was asked, handled and told."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.calls: dict[int, Call] = {}
        self.handled: Counter[int] = Counter()
        self.nameless = 0
        self.shared = 0  # events and answers that went through arenas
        self.told: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.answered: dict[int, str] = {}

    def call(self, *, large: bool = False, streamed: bool = False) -> Call:
        """A new one. `large`: event or result may be. `streamed`: more of those that flow."""
        rng = self.rng
        call = Call(number=len(self.calls) + 1)
        ways = ("", "slow", "parts", "error", "die", "cut", *STREAMING)
        flows = (30, 8, 3) if streamed else (3, 1, 0.3)
        call.do = rng.choices(ways, (70, 15, 10, 4, 0.3, 0.3, *flows))[0]
        if call.do in STREAMING:
            call.size = rng.randint(100_000, STREAM_LIMIT - 100_000)
        elif large:
            call.pad, call.size = rng.choice(((0, 0), (70_000, 0), (0, 70_000), (300_000, 300_000), (0, 1_500_000)))
        if call.do == "parts":
            call.size = min(call.size, LARGEST_IN_PARTS)
        self.calls[call.number] = call
        return call

    def take(self, event: bytes) -> Call:
        """A handler got it. A request whose head lost its length has the empty event, and no number."""
        if event == b"{}":
            self.nameless += 1
            return Call(number=0)
        call = self.calls.get(json.loads(event)["n"])
        if call is None or event != call.event:
            self.complain(f"an event that nobody sent: {event[:100]!r}")
            return Call(number=0)
        self.handled[call.number] += 1
        if self.handled[call.number] > 1:
            self.complain(f"call {call.number} was handled twice")
        return call

    def complain(self, text: str) -> None:
        self.wrong.append(text)

    def tell(self, call: Call, what: str, body: bytes = b"") -> None:
        """An honest caller was answered: "success", "error", "throttled" or "deadline"."""
        self.told[what] += 1
        if call.number in self.answered:
            self.complain(f"call {call.number} was answered twice")
        self.answered[call.number] = what
        times = self.handled[call.number]
        if what == "success" and (call.do in (*FAILING, *LEAVING) or body != call.result or times != 1):
            self.complain(f"{call}: handled {times} times, succeeded with {body[:100]!r}")
        elif what == "error":
            kind = json.loads(body).get("errorType")
            expected = "Runtime.ExitError" if call.do in LEAVING else FAILING.get(call.do)
            if kind != expected or times != 1:
                self.complain(f"{call}: handled {times} times, failed with {body[:100]!r}")
        elif what == "throttled" and times != 0:
            self.complain(f"{call}: throttled, and handled")


class Measured(Struct, frozen=True):
    """What the dispatcher holds."""

    descriptors: int
    resident_kb: int


def measure(stage: Stage) -> Measured:
    status = Path(f"/proc/{stage.pid}/status").read_text()
    kb = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS:"))
    return Measured(len(os.listdir(f"/proc/{stage.pid}/fd")), kb)


def open_doors(stage: Stage, runtime_api: bool = False) -> Control:
    """The function for the crowd, and its key."""
    control = stage.control()
    control.greet()
    fast = {"stream_burst": 1 << 30, "stream_rate": 1 << 30}
    limit = wire.PutLimit(concurrency=1000, stream_bytes=STREAM_LIMIT, **fast)
    control.synchronise((0, limit), (TARGET, target(**CROWDED, runtime_api=int(runtime_api))), (1, ROUTE), (5, KEY))
    return control


async def storm(stage: Stage, control: Control, ledger: Ledger, callers: int, seconds: float) -> dict[str, int]:
    """So many callers at once for so long, then each ends what it is at. The node's counters when all have gone."""
    from tests.integration.crowd_callers import Caller
    from tests.integration.crowd_handlers import Handlers
    from tests.integration.crowd_runtimes import RuntimeLedger, Runtimes

    handlers = (Runtimes if isinstance(ledger, RuntimeLedger) else Handlers)(stage, ledger)
    until = time.monotonic() + seconds
    page = counters(control)
    try:
        async with asyncio.timeout(seconds + 12 * PATIENCE):
            async with asyncio.TaskGroup() as crowd:
                for number in range(callers):
                    crowd.create_task(Caller(stage, ledger).run(until, honest=number % 4 == 0))
            while not at_rest(page.node()):
                await asyncio.sleep(0.02)
        node = page.node()
        slot = page.target(TARGET)
        assert slot is not None
        return {**{f"function_{name}": value for name, value in slot.items()}, **node}
    finally:
        page.close()
        handlers.close()


def at_peace(stage: Stage, control: Control, descriptors: int = 1 << 30) -> Measured:
    """Once the last environment has gone, and with it all descriptors above so many: what is held."""
    page = counters(control)
    await_true(lambda: page.node()["environments"] == 0, "the end of all environments")
    page.close()
    await_true(lambda: measure(stage).descriptors <= descriptors, f"no more than {descriptors} descriptors")
    return measure(stage)


def at_rest(node: dict[str, int]) -> bool:
    """Nobody is there, nothing is under way."""
    busy = ("connections", "calls_open", "invocations_in_flight", "waiting", "payload_bytes")
    return not any(node[name] for name in busy)


def balance(ledger: Ledger, seen: dict[str, int]) -> list[str]:
    """What of the counters does not agree with each other, or with what handlers and callers saw."""
    told = ledger.told
    handled = sum(ledger.handled.values()) + ledger.nameless
    answers = seen["answers_success"] + seen["answers_function_error"] + seen["answers_refused"]
    results = seen["function_success"] + seen["function_function_errors"] + seen["function_exits"]
    checks = {
        "calls are answers and what was abandoned": seen["calls"] == answers + seen["abandoned"],
        "each invocation was handled": seen["invocations"] == handled,
        "each invocation had one result": results == handled,
        "no time-out, no violation": not (seen["timeouts"] or seen["violations"] or seen["logic_errors"]),
        "each body in an arena is counted": seen["arena_payloads"] == ledger.shared,
        "no line of a log was lost": not (seen["log_records_dropped"] or seen["log_write_errors"]),
        "who left was asked to": seen["exits"] == sum(ledger.calls[n].do in LEAVING for n in ledger.handled),
        # What goes on and on is one as long as somebody is there to be told.
        "errors are those that were asked for": 0
        <= seen["function_function_errors"] - sum(ledger.calls[n].do in ("error", "break") for n in ledger.handled)
        <= sum(ledger.calls[n].do == "endless" for n in ledger.handled),
        "throttles: node and function agree": seen["function_throttles"] == seen["throttled_target"],
        "honest callers' successes are among the answers": told["success"] <= seen["answers_success"],
        "honest callers' throttles are among them": told["throttled"] <= seen["throttled_target"],
        "honest callers' deadlines are among the cancelled": told["deadline"] <= seen["cancelled"],
    }
    return [f"not so: {name}" for name, good in checks.items() if not good]


async def withstand(
    stage: Stage, *, callers: int, seconds: float, seed: int, growth_kb: int | None, runtimes: bool = False
) -> str:
    """The whole: a short storm from which the sizes are taken, a long one, and the search for what is left. Says what
    happened. `growth_kb`: of resident memory, over the long one; None: not looked at. `runtimes`: the function brings
    its own."""
    from tests.integration.crowd_runtimes import RuntimeLedger

    control = open_doors(stage, runtimes)
    ledger = (RuntimeLedger if runtimes else Ledger)(random.Random(seed))
    await storm(stage, control, ledger, callers, max(1.0, seconds / 8))
    between = at_peace(stage, control)
    seen = await storm(stage, control, ledger, callers, seconds)
    after = at_peace(stage, control, between.descriptors)
    assert stage.running()
    wrong = ledger.wrong + balance(ledger, seen)
    told = (
        f"seed {seed}: {len(ledger.calls)} calls, {seen['invocations']} invocations, {seen['abandoned']} abandoned, "
        f"{seen['http_malformed']} malformed, {ledger.shared} bodies in arenas; honest callers: "
        f"{dict(ledger.told)}; {between} -> {after}"
    )
    assert not wrong, "\n".join([told, *wrong[:20], str(seen)])
    assert min(ledger.told[what] for what in ("success", "error", "deadline")) > 0, told
    if growth_kb is not None:
        assert after.resident_kb - between.resident_kb < growth_kb, told
    return told
