"""Environments forked from one zygote: what they share, and that nothing that has to be random is the same in two."""

from __future__ import annotations

import pytest

from tests.outcomes import Outcome
from tests.security.escape.arena import Arena

SOURCE = """
import hashlib, os, random, secrets, ssl, tempfile, threading, time, uuid
SEEN = [random.random(), secrets.token_hex(8), str(uuid.uuid4()), ssl.RAND_bytes(8).hex(), os.urandom(8).hex(),
        next(tempfile._get_candidate_names()), random.SystemRandom().random(), random.getrandbits(64)]
def handler(event, context):
    return {"random": SEEN + [random.random(), ssl.RAND_bytes(8).hex(), str(uuid.uuid4())],
            "hash": hash("the same text"), "address": id(os.environ)}
"""


@pytest.mark.case("escape", "predicting a sibling: random, secrets, uuid, ssl, tempfile; hash seed and addresses")
def test_randomness(arena: Arena, outcome: Outcome) -> None:
    answers = [arena.call(arena.fresh(SOURCE)).value for _ in range(4)]
    drawn = [value for answer in answers for value in answer["random"]]
    assert len(set(drawn)) == len(drawn)
    # As the README says. A function that needs another seed runs its code in a process of its own.
    assert len({answer["hash"] for answer in answers}) == 1
    outcome(
        "no value comes twice; the seed of str hashes and the address layout are those of the zygote, as documented"
    )


@pytest.mark.case("escape", "processes that survive: setsid, double fork, ignored signals, threads, a used shell")
def test_survivors(arena: Arena, outcome: Outcome) -> None:
    """They die with their environment, and a shell in which something stayed is not used again."""
    name = arena.fresh("""
import os, signal, socket, time
def handler(event, context):
    if event == "leave":
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                for number in range(1, 65):
                    try:
                        signal.signal(number, signal.SIG_IGN)
                    except (OSError, ValueError):
                        pass
                server = socket.create_server(("127.0.0.1", 4712))
                os.write(ready[1], b"r")
                while True:
                    time.sleep(60)
            os._exit(0)
        os.wait()
        os.read(ready[0], 1)
        os._exit(0)
    with socket.socket() as s:
        return [s.connect_ex(("127.0.0.1", 4712)), os.readlink("/proc/self/ns/net"), os.getuid(), base()]
def base():
    with open("/proc/self/uid_map") as file:
        return int(file.read().split()[1])
ready = os.pipe()
""")
    _, before, uid, base = arena.call(name).value
    assert arena.call(name, "leave").failed
    connected, after, *_ = arena.call(name).value
    assert connected == 111
    assert after != before, "the shell was used again"
    assert arena.pids(base + uid) == []
    outcome("they end with their environment; the next one gets a fresh shell")
