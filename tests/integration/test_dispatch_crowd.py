"""200 callers, most of them rude, at the dispatcher's sockets for some seconds; `./dev soak` takes two minutes."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tests.integration.crowd import withstand
from tests.integration.dispatch_stage import staged
from tests.outcomes import Outcome

SEED = int(os.environ.get("RUNTIMED_CROWD_SEED", time.time_ns() % 1_000_000))


@pytest.mark.case("fault", "200 callers that disconnect, stall, cut bodies, reset streams, send garbage")
async def test_a_rude_crowd(tmp_path: Path, outcome: Outcome) -> None:
    print(f"RUNTIMED_CROWD_SEED={SEED}")
    growth = None if "RUNTIMED_DISPATCH" in os.environ else 48 * 1024  # sanitizers keep what was freed
    with staged(tmp_path) as stage:
        print(await withstand(stage, callers=200, seconds=5, seed=SEED, growth_kb=growth))
    outcome("honest callers among them get right answers; each invocation is counted once; nothing is held afterwards")


async def test_a_rude_crowd_of_a_runtime_of_the_functions_own(tmp_path: Path) -> None:
    """With two loops, between which its environments go to and fro."""
    print(f"RUNTIMED_CROWD_SEED={SEED}")
    with staged(tmp_path, RUNTIMED_DISPATCH_LOOPS="2") as stage:
        print(await withstand(stage, callers=200, seconds=3, seed=SEED, growth_kb=None, runtimes=True))
