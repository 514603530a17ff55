"""Power cuts under the event log: what was acknowledged is there, and nothing else.

`print_power` runs the log over files in memory and cuts the power at each operation, again during recovery, and during
what follows; here a reader of its own (event_log_reader.py) says what the disk holds. A planted fault, such as a sync
left out, must be seen: a model that finds nothing would prove nothing.
"""

from __future__ import annotations

import os
import pathlib
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.native.event_log_reader import crc32c, read

PROGRAM = pathlib.Path(__file__).resolve().parent.parent.parent / "build" / "sanitized" / "tests" / "print_power"


class Case(NamedTuple):
    name: str
    files: dict[str, bytes]
    submitted: set[int]
    acked: set[int]
    asked: set[int]
    settled: set[int]
    tried: dict[int, int]
    live: dict[int, tuple[int, int, str]]
    """By recovery."""
    failed: list[str]
    report: list[int] | None


def cases(lines: Iterator[str]) -> Iterator[Case]:
    case = None
    for line in lines:
        word, _, rest = line.rstrip("\n").partition(" ")
        if word == "case":
            case = Case(rest, {}, set(), set(), set(), set(), {}, {}, [], None)
            continue
        assert case is not None
        if word == "file":
            name, _, data = rest.partition(" ")
            case.files[name] = bytes.fromhex(data)
        elif word == "submitted":
            case.submitted.update(range(int(rest)))
        elif word in ("acked", "asked", "settled"):
            getattr(case, word).add(int(rest))
        elif word == "tried":
            event, attempts = map(int, rest.split())
            case.tried[event] = attempts
        elif word == "live":
            event, attempts, phase = map(int, rest.split()[:3])
            if event in case.live:
                case.failed.append(f"recovery found {event} twice")
            case.live[event] = attempts, phase, rest.split()[3]
        elif word == "failed":
            case.failed.append(f"recovery failed: {rest}")
        elif word == "report":
            case = case._replace(report=list(map(int, rest.split())))
        elif word == "end":
            yield case


def payload(event: int) -> bytes:
    size = event * 37 % 1500 if event % 7 == 0 else event * 13 % 120
    return bytes((event * 31 + i * 7 + (i >> 8)) & 255 for i in range(size))


def judge(case: Case) -> list[str]:
    found = read(case.files)
    wrong = [*found.faults, *case.failed]
    live: dict[int, tuple[int, int, str]] = {}
    for event, attempts, phase in found.live.values():
        number = int.from_bytes(event.id[:4], "little")
        if number in live:
            wrong.append(f"{number} is there twice")
        live[number] = attempts, phase, "good" if event.payload == payload(number) else "bad"
    wrong += [f"{event} was acknowledged and is lost" for event in sorted(case.acked - case.asked - set(live))]
    wrong += [f"{event} was never submitted" for event in sorted(set(live) - case.submitted)]
    wrong += [f"{event} was settled and is back" for event in sorted(case.settled & set(live))]
    wrong += [f"{event} has another payload" for event, (_, _, what) in live.items() if what != "good"]
    wrong += [
        f"{event} was tried {attempts} times, the disk says {live[event][0]}"
        for event, attempts in case.tried.items()
        if event in live and live[event][0] < attempts
    ]
    if case.report is not None:
        wrong += [f"recovery found {case.live}, the disk says {live}"] if case.live != live else []
        wrong += [f"recovery found damage: {case.report}"] if any(case.report) else []
    return wrong


def run(first: int, last: int, stride: int, fault: str = "none") -> tuple[int, dict[str, list[str]]]:
    """How many cases, and what was wrong in which."""
    command = [PROGRAM, str(first), str(last), str(stride), fault]
    n, wrong = 0, {}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        for case in cases(iter(process.stdout)):
            n += 1
            if found := judge(case):
                wrong[case.name] = found
                if fault != "none":  # one is enough
                    process.kill()
                    break
    assert fault != "none" or process.returncode == 0
    return n, wrong


@pytest.fixture(autouse=True)
def built() -> None:
    if not PROGRAM.exists():
        pytest.skip("the sanitizer build is missing; ./dev test makes it")


def test_the_readers_checksum() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"6789", crc32c(b"12345")) == 0xE3069283


def test_power_cuts() -> None:
    n, wrong = run(0, 16, 7)
    assert wrong == {}
    assert n > 200


def test_power_cuts_after_a_failed_move_on_a_full_disk() -> None:
    """The group that failed may be on the disk, with copies of events that are settled where they were, afterwards."""
    n, wrong = run(3033, 3034, 3)
    assert wrong == {}
    assert n > 60


FAULTS = {"sync": 0, "directory": 0, "salt": 1, "early": 0, "checksum": 0, "settle": 0}
"""With a seed that shows it: a sync left out, of a file or a directory; salts that come again; acknowledged before the
sync; recovery that does not look at checksums; a settled event whose record does not say so."""


@pytest.mark.parametrize(("fault", "seed"), FAULTS.items())
def test_planted_faults_are_seen(fault: str, seed: int) -> None:
    _, wrong = run(seed, seed + 60, 1, fault)
    assert wrong != {}


@pytest.mark.soak
@pytest.mark.parametrize("part", range(20))
def test_power_cuts_at_every_operation(part: int) -> None:
    n, wrong = run(part * 100, part * 100 + 100, 1)
    assert wrong == {}
    assert n > 5000


@pytest.mark.soak
def test_a_million_events_that_always_fail() -> None:
    """The long days of the queues (native/tests/test_queue_days.c), with a million instead of some thousands."""
    program = PROGRAM.with_name("test_queue_days")
    subprocess.run([program], env={**os.environ, "RUNTIMED_QUEUE_EVENTS": "1000000"}, check=True, timeout=3600)
