"""The event log's bad days in the real dispatcher: syncs that hang or fail, a clock that is set, damage on the disk.

Syncs and the clock are moved by libraries in front of the C library's; what is damaged is damaged in the files.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.crash.test_clock import Clock
from tests.integration.dispatch_stage import FUNCTION, Control, await_true
from tests.integration.event_stage import (
    EVENT,
    accept,
    await_count,
    counted,
    fail,
    kill,
    operate,
    prepare,
    queue_state,
    staged,
)
from tests.outcomes import Outcome

GOOD, FAILING, HANGING = 0, 1, 2
YEAR = 365 * 86400
SHIM = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static volatile unsigned char *said; /* what is to be done; whether somebody hangs */

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("SYNCS"), O_RDWR | O_CLOEXEC);
    said = mmap(NULL, 2, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
}

int fdatasync(int fd) {
    while (said[0] == 2) {
        said[1] = 1;
        poll(NULL, 0, 2);
    }
    said[1] = 0;
    if (said[0] == 1) {
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}
"""


class Syncs:
    """Those of a dispatcher that was started with `environment`."""

    def __init__(self, directory: Path) -> None:
        library, source = directory / "syncs.so", directory / "syncs.c"
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file = directory / "syncs"
        self._file.write_bytes(bytes(2))
        self.environment = {"LD_PRELOAD": str(library), "SYNCS": str(self._file),
                            "ASAN_OPTIONS": "verify_asan_link_order=0"}  # fmt: skip

    def are(self, how: int) -> None:
        with self._file.open("r+b") as file:
            file.write(bytes([how]))

    def one_hangs(self) -> bool:
        return self._file.read_bytes()[1] == 1


@pytest.fixture
def syncs(tmp_path: Path) -> Iterator[Syncs]:
    made = Syncs(tmp_path)
    yield made
    made.are(GOOD)


def pause(control: Control, generation: int, paused: int) -> None:
    control.acknowledged(control.put(wire.PutAsync(function_uid=FUNCTION, paused=paused), 9, generation))


@pytest.mark.case("fault", "fdatasync takes for ever")
def test_a_sync_that_hangs_holds_back_no_call(tmp_path: Path, syncs: Syncs, outcome: Outcome) -> None:
    with staged(tmp_path / "d", tmp_path / "queue", **syncs.environment) as stage:
        control = prepare(stage)
        caller, sender = stage.invoker(), stage.invoker()
        environment = stage.warm(caller)
        pause(control, 1, 1)
        accept(sender)
        syncs.are(HANGING)
        numbers = [sender.call(b"1", flags=EVENT)]
        await_true(syncs.one_hangs, "a sync")
        groups = counted(control, "event_groups")
        numbers += [sender.call(b"%d" % n, flags=EVENT) for n in range(2, 40)]
        for _ in range(3):  # calls are answered, events are not
            call = caller.call()
            environment.serve()
            assert caller.answer(call)[0].status == 200
        assert sender.silent()
        assert counted(control, "events_accepted") == 1
        syncs.are(GOOD)
        answered = {sender.next()[0].object for _ in numbers}
        assert answered == set(numbers)
        await_count(control, "events_accepted", 40)
        assert counted(control, "event_groups") <= groups + 3, "what came meanwhile is one group"
        pause(control, 2, 0)
        for _ in range(40):
            environment.serve()
        await_count(control, "events_waiting", 0)
    outcome("events are not acknowledged until it ends; synchronous calls go on; what came meanwhile is one group")


@pytest.mark.case("fault", "fdatasync fails")
def test_a_sync_that_fails_refuses_what_is_not_kept(tmp_path: Path, syncs: Syncs, outcome: Outcome) -> None:
    with staged(tmp_path / "a", tmp_path / "queue", **syncs.environment) as stage:
        control = prepare(stage)
        pause(control, 1, 1)
        sender = stage.invoker()
        kept = [accept(sender, b"1")]
        syncs.are(FAILING)
        for n in range(20):
            answer, _ = sender.answer(sender.call(b"%d" % n, flags=EVENT))
            assert (answer.status, answer.code) == (503, "ServiceException")
        syncs.are(GOOD)

        def accepted() -> bool:
            answer, _ = sender.answer(sender.call(b"3", flags=EVENT))
            assert answer.status in (202, 503)
            if answer.status == 202:
                kept.append(bytes(answer.request_id))
            return answer.status == 202

        await_true(accepted, "the log to take events again")
        kill(stage)
    with staged(tmp_path / "b", tmp_path / "queue", **syncs.environment) as stage:
        control = prepare(stage)
        assert counted(control, "events_damaged_files") == 0
        await_true(lambda: operate(control, wire.QueueOperation.LIST)[1].error == 0, "the log to be read")
        events, _ = operate(control, wire.QueueOperation.LIST)
        found = [bytes(event.event) for event in events]
        assert sorted(found) == sorted(kept), "what was refused does not come back, what was accepted is there"
    outcome("events are refused with 503 and do not come back; that file is given up, another one takes events again")


@pytest.mark.case("fault", "the clock is set while events wait")
def test_the_clock_is_set_while_events_wait(tmp_path: Path, outcome: Outcome) -> None:
    clock = Clock(tmp_path)
    rule = {"base_delay_ms": 1, "max_age_ms": 60_000}
    with staged(tmp_path / "d", tmp_path / "queue", **clock.environment) as stage:
        control = prepare(stage, rule=rule)
        sender = stage.invoker()
        environment = stage.warm(sender)
        own = wire.PutAsync(function_uid=FUNCTION, retries=2, base_delay_ms=1, max_age_ms=60_000, paused=1)
        control.acknowledged(control.put(own, 9, 1))
        numbers = [accept(sender, b"1")]
        for step in (YEAR, 0, YEAR, 2 * YEAR):
            clock.step(step)
            numbers.append(accept(sender, b"1"))
        clock.step(3 * YEAR)  # each of them looks older than it may be
        resumed = wire.PutAsync(function_uid=FUNCTION, retries=2, base_delay_ms=1, max_age_ms=60_000)
        control.acknowledged(control.put(resumed, 9, 2))
        seen = []
        for _ in numbers:
            invoke, _ = environment.invoke()
            seen.append(bytes(invoke.id))
            environment.result(invoke.id)
        assert sorted(seen) == sorted(numbers)
        await_count(control, "events_waiting", 0)
        assert counted(control, "events_dead") == 0
    outcome("no event is too old because of it; a retry waits five minutes at most")


@pytest.mark.case("fault", "the clock is set back by a year while an event waits for a retry in half an hour")
def test_a_retry_far_away_waits_no_longer_for_a_clock_that_is_set_back(tmp_path: Path, outcome: Outcome) -> None:
    clock = Clock(tmp_path)
    with staged(tmp_path / "d", tmp_path / "queue", **clock.environment) as stage:
        control = prepare(stage, rule={"base_delay_ms": 1_800_000})
        sender = stage.invoker()
        environment = stage.warm(sender)
        number = accept(sender, b"1")
        assert fail(environment, 1) == [number]
        await_count(control, "events_retried", 1)
        for step, others in ((-YEAR, b"2"), (-YEAR + 1700, b"3")):
            clock.step(step)
            other = accept(sender, others)  # the thread looks at the clock when there is something to do
            assert bytes(environment.serve().id) == other
        assert environment.silent()
        clock.step(-YEAR + 1900)
        last = accept(sender, b"4")
        assert {bytes(environment.serve().id) for _ in range(2)} == {number, last}
        await_count(control, "events_waiting", 0)
    outcome("it is retried half an hour after it failed, by the clock that goes on, not a year later")


def groups(file: bytes) -> list[int]:
    """Where groups begin."""
    found, at = [], 0
    while (at := file.find(b"RTQG", at)) >= 0:
        found.append(at)
        at += 4
    return found


@pytest.mark.case("fault", "a file of the event log is damaged at the start")
def test_damage_that_is_found_at_the_start(tmp_path: Path, outcome: Outcome, capfd: pytest.CaptureFixture[str]) -> None:
    with staged(tmp_path / "a", tmp_path / "queue") as stage:
        control = prepare(stage)
        pause(control, 1, 1)
        numbers = [accept(stage.invoker(), b'"event %d"' % n) for n in range(5)]
        kill(stage)
    file = tmp_path / "queue" / "0000000000000001.log"
    data = bytearray(file.read_bytes())
    at = groups(bytes(data))
    data[at[1] + 48 + 100] ^= 1  # in the second event
    file.write_bytes(data)
    with staged(tmp_path / "b", tmp_path / "queue") as stage:
        control = prepare(stage)
        await_count(control, "events_damaged_files", 1)
        environment = stage.launch()
        environment.start()
        seen = {bytes(environment.serve().id) for _ in range(4)}
        assert seen == {*numbers} - {numbers[1]}
        await_count(control, "events_waiting", 0)
    assert file.with_name(file.name + ".damaged").read_bytes() == bytes(data), "kept as it was"
    said = capfd.readouterr().err
    assert "DAMAGED: 1 segments" in said and "4 events were saved" in said
    outcome("the file is kept aside and reported (log, /metrics, doctor); all events that can be read are saved")


@pytest.mark.case("fault", "an event's record is damaged while it waits")
def test_damage_that_is_met_by_reading(tmp_path: Path, outcome: Outcome, capfd: pytest.CaptureFixture[str]) -> None:
    with staged(tmp_path / "d", tmp_path / "queue") as stage:
        control = prepare(stage)
        pause(control, 1, 1)
        numbers = [accept(stage.invoker(), b'"event %d"' % n) for n in range(5)]
        file = tmp_path / "queue" / "0000000000000001.log"
        with file.open("r+b") as opened:
            at = groups(file.read_bytes())[2]
            opened.seek(at + 48 + 100)
            opened.write(b"\xff\xff\xff\xff")
        pause(control, 2, 0)
        environment = stage.launch()
        environment.start()
        seen = {bytes(environment.serve().id) for _ in range(4)}
        assert seen == {*numbers} - {numbers[2]}
        await_count(control, "events_unreadable", 1)
        assert counted(control, "events_damaged_files") == 1
        queue_state(control, lambda s: s.depth == 0 and s.in_flight == 0)
    copy = tmp_path / "queue" / "copy-0000000000000001.log.damaged"
    assert copy.read_bytes()[at + 148 : at + 152] == b"\xff\xff\xff\xff"
    assert "an event cannot be read and is lost" in capfd.readouterr().err
    outcome("that event is lost and reported, a copy of its file is kept; the others are handled")


def test_events_of_a_deleted_function_are_given_up(tmp_path: Path) -> None:
    with staged(tmp_path / "d", tmp_path / "queue") as stage:
        control = prepare(stage)
        environment = stage.warm(stage.invoker())
        # One runs, one waits for its retry far away, three for their turn.
        pause(control, 1, 1)
        numbers = [accept(stage.invoker(), b"%d" % n) for n in range(4)]
        _, done = operate(control, wire.QueueOperation.GIVE_UP, state=wire.EventState.WAITING)
        assert (done.matched, done.busy) == (4, 0)
        state = queue_state(control, lambda s: s.dead == 4)
        assert (state.depth, state.in_flight) == (0, 0)
        _, done = operate(control, wire.QueueOperation.GIVE_UP, state=wire.EventState.ANY)
        assert done.matched == 0
        pause(control, 2, 0)
        running = accept(stage.invoker(), b"5")
        invoke, _ = environment.invoke()
        assert bytes(invoke.id) == running, "those that were given up are not invoked"
        _, done = operate(control, wire.QueueOperation.GIVE_UP, state=wire.EventState.ANY)
        assert (done.matched, done.busy) == (0, 1)
        environment.result(invoke.id)
        await_count(control, "events_waiting", 0)
    with staged(tmp_path / "e", tmp_path / "queue") as stage:
        control = prepare(stage)
        queue_state(control, lambda s: s.dead == 4 and s.depth == 0)
        events, _ = operate(control, wire.QueueOperation.LIST, state=wire.EventState.DEAD)
        assert [bytes(event.event) for event in events] == numbers
        assert {event.attempts for event in events} == {0}
        _, done = operate(control, wire.QueueOperation.REDRIVE, event=numbers[0])
        assert done.matched == 1
        environment = stage.launch()
        environment.start()
        assert bytes(environment.serve().id) == numbers[0]
        queue_state(control, lambda s: s.dead == 3 and s.depth == 0)
