"""SnapStart and provisioned concurrency exclude each other, also where two requests ask for them at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from runtimed.invocation.concurrency import check_meant
from runtimed.model import errors
from runtimed.model.function import SnapStart, SnapStartApplyOn, UpdateFunctionConfigurationRequest
from runtimed.store.concurrency import ConcurrencyStore
from tests.integration.control_stage import Stage, staged


@pytest_asyncio.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with staged(tmp_path) as made:
        yield made


@pytest.mark.parametrize("begins", ["provision", "update"])
async def test_snap_start_and_provisioned_concurrency_meet(stage: Stage, begins: str) -> None:
    """Two requests at once: whichever is written second is refused."""
    await stage.create()
    await stage.settled()
    reserve = ConcurrencyStore(stage.database)
    both = {
        "provision": lambda: reserve.put(
            "f", "$LATEST", 1, 1, lambda uid, found, settings: check_meant("f", "$LATEST", found)
        ),
        "update": lambda: stage.deployer.update_configuration(
            UpdateFunctionConfigurationRequest(
                function_name="f", snap_start=SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS)
            )
        ),
    }
    calls = [both.pop(begins)(), *(call() for call in both.values())]
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert sum(isinstance(one, errors.InvalidParameterValue) for one in done) == 1, done
    shown = await stage.settled()
    on = shown.snap_start.apply_on is SnapStartApplyOn.PUBLISHED_VERSIONS
    assert on != bool(await reserve.of("f"))
