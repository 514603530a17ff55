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
    run(one, f"sys.modules['app'].kept = '{''.join(halves)}'; result = None")
    assert search(one, halves) > 0, "the search finds what is there"
    assert search(other, halves) == 0
    assert search(begin(stage), halves) == 0, "what a copy did is not in later ones"


def test_variables_of_a_copy_are_its_own(stage: Stage) -> None:
    """What START says: names, log stream, and tokens if there are any; in Python, in C, and nowhere in a sibling."""
    made(stage)
    tokens = [os.urandom(8).hex() for _ in range(2)]
    copies = [
        begin(stage, f"stream {number}", variables={"AWS_SESSION_TOKEN": "token-" + token, f"ONLY_{number}": "x"})
        for number, token in enumerate(tokens)
    ]
    look = (
        "get = ctypes.CDLL(None).getenv; get.restype = ctypes.c_char_p\n"
        "names = ('AWS_SESSION_TOKEN', 'AWS_LAMBDA_LOG_STREAM_NAME', 'ONLY_0', 'ONLY_1')\n"
        "result = [[os.environ.get(name) for name in names], [(get(name.encode()) or b'').decode() for name in names],"
        " context.log_stream_name]"
    )
    for number, (copy, token) in enumerate(zip(copies, tokens, strict=True)):
        own = ["token-" + token, f"stream {number}", *(None if other != number else "x" for other in range(2))]
        assert run(copy, look)["result"] == [own, [value or "" for value in own], f"stream {number}"]
        assert search(copy, ("token-", token)) > 0, "the search finds what is there"
        assert search(copies[1 - number], ("token-", token)) == 0


def test_files_of_a_copy_are_its_own(stage: Stage) -> None:
    """/tmp begins empty in each, and none is another's disk."""
    made(stage)
    copies = [begin(stage) for _ in range(2)]
    written = "open('/tmp/mine', 'x').write('x'); result = [os.stat('/tmp').st_dev, os.listdir('/tmp')]"
    seen = [run(copy, written)["result"] for copy in copies]
    assert [names for _, names in seen] == [["mine"]] * 2
    assert seen[0][0] != seen[1][0]


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
