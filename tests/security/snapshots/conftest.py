"""SnapStart and hostile code. The launcher, the zygote and the environments are real; the test is the control plane and
the dispatcher. Who writes a snapshot is a process of the function's own: each test has the function's code do with that
what it can."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from tests.conftest import need_root
from tests.integration.launcher_stage import Played, played
from tests.integration.snapshot_stage import Stage


@pytest.fixture(scope="module")
def shared() -> Iterator[Played]:
    need_root()
    with played(zygotes=1) as stage:
        yield stage


numbers = itertools.count(1, 2)


@pytest.fixture
def stage(shared: Played) -> Iterator[Stage]:
    stage = Stage(shared, next(numbers))
    launcher = shared.pid
    yield stage
    stage.close()
    assert shared.pid == launcher
    assert shared.process is not None
    assert shared.process.poll() is None
