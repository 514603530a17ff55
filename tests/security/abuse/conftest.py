"""The node that all abuse is done to; at its end nothing of it may be left, and the kernel may not have complained."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.node import Node
from tests.conftest import need_root
from tests.security.abuse.stage import Stage, kernel_complaints

SETTINGS = {"RUNTIMED_LIMITS_INIT_SECONDS": "3"}  # short enough to wait for one that does not end


@pytest.fixture(scope="session")
def abused() -> Iterator[Stage]:
    need_root()
    before = kernel_complaints()
    with Node.start(SETTINGS) as node:
        stage = Stage(node)
        yield stage
        stage.settle(spare=("none",))
        stage.close()
    new = [line for line in kernel_complaints() if line not in before]
    assert not new, new


@pytest.fixture
def stage(abused: Stage) -> Iterator[Stage]:
    """The daemons must be the same after each test."""
    before = abused.census().roles
    yield abused
    assert abused.census().roles == before, "a daemon was lost or restarted: see the node's log"
