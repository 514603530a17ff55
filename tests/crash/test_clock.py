"""The wall clock is set while the node serves: the real dispatcher below a library that moves its clock_gettime."""

from __future__ import annotations

import struct
import subprocess
import time
from pathlib import Path

import pytest

from runtimed.dispatch.logs import Cursor, Kind
from tests.integration.dispatch_stage import FUNCTION, Environment, Invoker, Stage, await_true, staged
from tests.integration.test_log_retention import DAY, segment
from tests.outcomes import Outcome

YEARS = 30 * 365 * DAY
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static const volatile long *seconds;

__attribute__((constructor)) static void begin(void) {
    int fd = open(getenv("STEPPED_CLOCK"), O_RDONLY | O_CLOEXEC);
    seconds = mmap(NULL, sizeof(*seconds), PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
}

int clock_gettime(clockid_t id, struct timespec *ret) {
    int r = (int)syscall(SYS_clock_gettime, id, ret);
    if (id == CLOCK_REALTIME && r == 0)
        ret->tv_sec += *seconds;
    return r;
}
"""


class Clock:
    """The wall clock of those that were started with `environment`."""

    def __init__(self, directory: Path) -> None:
        library, source = directory / "clock.so", directory / "clock.c"
        source.write_text(SHIM)
        subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source], check=True)
        self._file = directory / "clock"
        self._file.write_bytes(bytes(8))
        # A library in front of the sanitizers' is no fault here.
        self.environment = {"LD_PRELOAD": str(library), "STEPPED_CLOCK": str(self._file),
                            "ASAN_OPTIONS": "verify_asan_link_order=0"}  # fmt: skip

    def step(self, seconds: int) -> None:
        """Away from the machine's."""
        with self._file.open("r+b") as file:
            file.write(struct.pack("<q", seconds))


def call(stage: Stage, clock: Clock, invoker: Invoker, seconds: int, text: str, life: int) -> Environment:
    """A call into an environment of its own, while which the clock is set, once this dispatcher (its `life` counts from
    1) has begun its segment of the log: that carries the time of its beginning."""
    invoker.call()
    environment = stage.launch()
    environment.start()
    invoke, _ = environment.invoke()
    await_true(lambda: len(list((stage.logs / FUNCTION.hex()).glob("*.log"))) == life, "the segment of this life")
    clock.step(seconds)
    environment.print(text)
    environment.result(invoke.id)
    assert invoker.answer()[0].status == 200
    environment.hang_up()
    return environment


@pytest.mark.case("fault", "clock steps")
def test_the_clock_is_set(tmp_path: Path, outcome: Outcome) -> None:
    clock = Clock(tmp_path)
    logs = tmp_path / "logs"
    logs.mkdir()
    kept = [segment(logs, bytes(16), number, 100, age * DAY) for number, age in ((1, 6), (2, 1))]
    written: list[str] = []
    earlier: set[int] = set()
    for life, start in enumerate((0, -YEARS, YEARS), 1):  # each time as a dispatcher that begins with such a clock
        clock.step(start)
        swept = logs / ("3" * 32)  # goes with the first sweep
        swept.mkdir()
        directory = tmp_path / f"at{start}"
        directory.mkdir()
        with staged(directory, logs, RUNTIMED_LOGS_DAYS="7", **clock.environment) as stage:
            stage.ready(timeout_ms=60_000)
            invoker, numbers = stage.invoker(), []
            for step in (start + YEARS, max(start - YEARS, -YEARS), start):  # no clock reads less than 1970
                written.append(f"{start} {step} {len(written)}")
                numbers.append(call(stage, clock, invoker, step, written[-1] + "\n", life).number)
            await_true(lambda swept=swept: not swept.exists(), "a sweep")

            def lines(stage: Stage = stage) -> list[str]:
                return [r.payload.decode() for r in stage.records() if r.kind == Kind.LINE]

            await_true(lambda: lines() == written, "all lines, in the order in which they were written")
        assert numbers == sorted({*numbers} - earlier), (
            "each environment has a number of its own, in the order of launch"
        )
        earlier |= {*numbers}
        assert all(path.exists() for path in kept), "nothing goes because of a clock that jumped"
    now = Cursor(logs / FUNCTION.hex())
    now.skip_before(int((time.time() - DAY / 2) * 1e6))
    found = []
    while records := now.read():
        found += [record.payload.decode() for record in records if record.kind == Kind.LINE]
    assert found[:3] == written[:3], "a search by time passes over nothing written after it"
    outcome(
        "time-outs and the order of log lines do not follow it; environments keep numbers of their own; logs are not "
        "removed for their age until the clock has gone evenly for a day"
    )
