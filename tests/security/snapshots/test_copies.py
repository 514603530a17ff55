"""Copies of one snapshot: what two of them see of each other."""

from __future__ import annotations

import os
from typing import Any

from tests.integration.launcher_stage import Environment
from tests.integration.snapshot_stage import Stage, begin, made, run
from tests.integration.test_launcher import process_of

# Looks for a text, given in two halves, in all of its memory that it can read; its own copies of it are none.
SEARCH = """
first, second = %r
found, size = 0, len(first) + len(second)
with open("/proc/self/mem", "rb", 0) as memory:
    for line in open("/proc/self/maps"):
        span, rights = line.split()[:2]
        if rights[0] != "r" or "[v" in line: continue
        start, end = (int(part, 16) for part in span.split("-"))
        for at in range(start, end, 1 << 20):
            try:
                memory.seek(at); data = memory.read(min(end - at, (1 << 20) + size))
            except (OSError, ValueError, OverflowError):
                break
            place = data.find(first.encode())
            while place >= 0:
                found += data[place + len(first):place + size] == second.encode()
                place = data.find(first.encode(), place + 1)
            del data
result = found
"""


def search(environment: Environment, halves: tuple[str, str]) -> Any:
    return run(environment, SEARCH % (halves,))["result"]


def test_memory_and_events_of_a_copy_are_its_own(stage: Stage) -> None:
    made(stage)
    one, other = begin(stage), begin(stage)
    halves = ("in-the-event-", os.urandom(8).hex())
    kept = f"sys.modules['app'].kept = ''.join(['{halves[0]}', '{halves[1]}']); result = None"
    run(one, kept)
    assert search(one, halves) > 0, "the search finds what is there"
    assert search(other, halves) == 0
    assert search(begin(stage), halves) == 0, "what a copy did is not in later ones"


def test_processes_of_a_copy_are_its_own(stage: Stage) -> None:
    made(stage)
    one, other = begin(stage), begin(stage)
    pid = process_of(one)
    attack = (
        f"result = []\nfor call in (lambda: os.kill({pid}, 9), lambda: os.kill(-1, 9), lambda: os.killpg({pid}, 9),\n"
        f"             lambda: open('/proc/{pid}/mem'), lambda: os.pidfd_open({pid})):\n"
        "    try: call(); result.append(0)\n"
        "    except OSError as error: result.append(error.errno)\n"
        "result.append(sorted(int(name) for name in os.listdir('/proc') if name.isdigit() and name != '1'))\n"
        "result.append(os.getpid())"
    )
    *_, seen, me = run(other, attack)["result"]
    assert seen == [me]
    assert run(one, "result = None")["count"] == 1
