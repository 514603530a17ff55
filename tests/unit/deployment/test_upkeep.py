"""Tasks of the control plane that go on whatever happens."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

import runtimed.daemon
from runtimed.deployment.upkeep import kept_up


async def test_begun_again_and_said(caplog: pytest.LogCaptureFixture) -> None:
    tries = 0

    async def run() -> None:
        nonlocal tries
        tries += 1
        if tries < 3:
            raise OSError("no space left")

    with caplog.at_level(logging.ERROR):
        await kept_up("the look at the disk", run, pause=0.0)
    assert tries == 3
    assert [record.getMessage() for record in caplog.records] == [
        "the look at the disk: failed, and begins again in 0 s"
    ] * 2
    assert "no space left" in caplog.text


async def test_a_cancelled_one_ends() -> None:
    begun = asyncio.Event()

    async def run() -> None:
        begun.set()
        await asyncio.Event().wait()

    task = asyncio.create_task(kept_up("waiting", run))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_the_daemon_begins_none_in_another_way() -> None:
    source = Path(runtimed.daemon.__file__).read_text()
    assert source.count("create_task(") == source.count("create_task(kept_up(") == 1
