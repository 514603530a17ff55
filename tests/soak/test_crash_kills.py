"""kill -9 of processes of a node at random, for minutes, under load and deployments.

RUNTIMED_SOAK_MINUTES (10) says how long, RUNTIMED_SOAK_SEED which kills; the seed is printed. Every tenth death is the
launcher's, after which the node is started again in its directories. At the end everything is deleted and what the node
consists of must be what it was.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from tests.conftest import need_root
from tests.crash import census, load
from tests.crash.load import FUNCTIONS
from tests.crash.test_kills import SECONDS

KINDS = ("control", "dispatch", "zygote", "spare", "environment", "anchor", "seater", "imager", "shellmaker", "task")
SLACK_KB = 12_000  # of resident memory: allocators and caches, not a leak
SLACK_DESCRIPTORS = 12


def at_rest(node: Node) -> None:
    await_true(node.answers, SECONDS, "the control plane's answer")
    try:
        await_true(lambda: not census.consistent(node), SECONDS, "counters that agree")
    except TimeoutError as error:
        error.add_note(census.consistent(node) + census.output(node))
        raise


def kill(node: Node, kind: str, rng: random.Random) -> bool:
    found = sorted(census.by_kind(node).get(kind, []))
    if not found:
        return False
    try:
        os.kill(rng.choice(found), signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def storm(node: Node, rng: random.Random, until: float) -> tuple[Counter[str], list[float], load.Load]:
    """Deaths by kind, and the seconds that callers waited after each."""
    deaths: Counter[str] = Counter()
    waits: list[float] = []
    with load.Load(node, FUNCTIONS) as pressure:
        while time.monotonic() < until and not pressure.wrong:
            moment = time.monotonic()
            if rng.random() < 0.03:
                kind = "launcher"
                os.kill(node.launcher.pid, signal.SIGKILL)
                node.start_again()
            else:
                kind = rng.choice(KINDS)
                if not kill(node, kind, rng):
                    continue
                for also in rng.sample(KINDS, rng.choice((0, 0, 0, 1, 2))):
                    kill(node, also, rng)
            await_true(lambda moment=moment: pressure.served_since(moment), SECONDS, f"answers after a {kind} died")
            deaths[kind] += 1
            waits.append(time.monotonic() - moment)
            pressure.pause(rng.random() * 0.5)
    return deaths, waits, pressure


@pytest.mark.soak
def test_kills_at_random() -> None:
    need_root()
    minutes = float(os.environ.get("RUNTIMED_SOAK_MINUTES", "10"))
    seed = int(os.environ.get("RUNTIMED_SOAK_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed {seed}, {minutes:g} minutes")
    with Node.start() as node:
        with Client(node.address) as client:
            for name in FUNCTIONS:
                load.deploy(client, name)
        before = census.take(node)
        deaths, waits, pressure = storm(node, random.Random(seed), time.monotonic() + minutes * 60)
        print(f"{sum(deaths.values())} deaths: {dict(deaths)}")
        print(f"served again after {max(waits):.1f} s at most, {sorted(waits)[len(waits) // 2]:.2f} s in the middle")
        print(f"callers were told: {dict(pressure.told)}")
        assert not pressure.wrong, "\n".join(pressure.wrong) + census.output(node)
        at_rest(node)
        with Client(node.address) as client:
            for function in client.list_functions():
                client.delete_function(function.function_name)
        at_rest(node)
        settled(node, before)


def settled(node: Node, before: census.Census) -> None:
    """Stock of what was used goes within a minute; then the node is what it was."""

    def excess() -> str:
        now = census.take(node)
        for name in ("cgroups", "loops", "images", "namespaces"):
            if getattr(now, name) > getattr(before, name):
                return f"{getattr(now, name)} {name}, {getattr(before, name)} before"
        for name, number in now.descriptors.items():
            if number > before.descriptors[name] + SLACK_DESCRIPTORS:
                return f"{name} has {number} descriptors, {before.descriptors[name]} before"
        for name, size in now.resident_kb.items():
            if size > before.resident_kb[name] + SLACK_KB:
                return f"{name} takes {size} KiB, {before.resident_kb[name]} before"
        return ""

    try:
        await_true(lambda: not excess(), 90, "a node as it was")
    except TimeoutError as error:
        error.add_note(excess())
        raise
