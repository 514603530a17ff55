"""Minutes of kill -9 of zygotes, of environments that are copies or copied, and of their pid 1, under load of functions
with SnapStart: a call fails only with the process that it runs in. RUNTIMED_SOAK_MINUTES (10) says how long,
RUNTIMED_SOAK_SEED which kills; the seed is printed."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator

import pytest

from bench.node import Node
from runtimed.client import Client
from tests.conftest import need_root
from tests.crash.test_snapshot_kills import FUNCTIONS, SETTINGS, deploy, storm

KINDS = ("zygote", "environment", "anchor")


def kinds(rng: random.Random, until: float) -> Iterator[str]:
    while time.monotonic() < until:
        yield rng.choice(KINDS)


@pytest.mark.soak
@pytest.mark.timeout(0)
def test_kills_of_what_snapshots_hang_on() -> None:
    need_root()
    seed = int(os.environ.get("RUNTIMED_SOAK_SEED", time.time_ns() % 1_000_000))
    print(f"RUNTIMED_SOAK_SEED={seed}")
    rng = random.Random(seed)
    until = time.monotonic() + 60 * float(os.environ.get("RUNTIMED_SOAK_MINUTES", "10"))
    with Node.start(SETTINGS) as node:
        with Client(node.address) as client:
            for name in FUNCTIONS:
                deploy(client, name)
        pressure = storm(node, kinds(rng, until), rng)
        print(dict(pressure.told))
