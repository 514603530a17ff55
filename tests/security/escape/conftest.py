from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.node import Node
from tests.conftest import need_root
from tests.security.escape.arena import Arena


@pytest.fixture(scope="session")
def shared_arena() -> Iterator[Arena]:
    need_root()
    with Node.start({"RUNTIMED_SANDBOX_ZYGOTES_PER_RUNTIME": "1"}) as node:
        arena = Arena(node)
        try:
            yield arena
        finally:
            arena.close()


@pytest.fixture
def arena(shared_arena: Arena) -> Iterator[Arena]:
    """After each attack the node's processes are those from before, and the victim, if it is the one from before,
    answers rightly."""
    yield shared_arena
    assert shared_arena.lost() == [], "see the node's log"
    assert shared_arena.victim()["uid"] == shared_arena.victim_uid, "the victim's environment was lost"
