"""The rude crowd for two minutes: on the program as it is installed, on the one with the sanitizers of memory, which
looks for leaks when it leaves, and on the one with that of threads (its loops, and the writer of its logs). With one
loop and with two; with handlers, which have arenas, and with runtimes of the function's own. RUNTIMED_CROWD_SEED
repeats one; RUNTIMED_CROWD_SECONDS says how long."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.integration import dispatch_stage
from tests.integration.crowd import withstand
from tests.integration.test_dispatch_crowd import SEED
from tests.native.test_native import BUILD

SECONDS = float(os.environ.get("RUNTIMED_CROWD_SECONDS", "120"))
PROGRAMS = {
    "installed": dispatch_stage.PROGRAM,
    "sanitized": BUILD / "dispatch" / "runtimed-dispatch",
    "threads": BUILD.with_name("threads") / "dispatch" / "runtimed-dispatch",
}
KINDS = {"handlers": (1, False), "handlers, two loops": (2, False), "runtimes, two loops": (2, True)}
"""Loops, and whose runtime."""


@pytest.mark.soak
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_rude_crowd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, kind: str) -> None:
    assert PROGRAMS[program].exists(), f"{PROGRAMS[program]}: ./dev soak builds it"
    print(f"RUNTIMED_CROWD_SEED={SEED}")
    monkeypatch.setattr(dispatch_stage, "PROGRAM", PROGRAMS[program])
    growth = 32 * 1024 if program == "installed" else None
    loops, runtimes = KINDS[kind]
    with dispatch_stage.staged(tmp_path, RUNTIMED_DISPATCH_LOOPS=str(loops)) as stage:
        told = await withstand(stage, callers=200, seconds=SECONDS, seed=SEED, growth_kb=growth, runtimes=runtimes)
    print(told)
