"""A node with functions that say who they are, for a file of tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from bench.node import Node
from runtimed.client import Client
from tests.conftest import need_root
from tests.crash import load


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    need_root()
    with Node.start({"RUNTIMED_POOLS_FREEZE_AFTER_MS": "100"}) as node:
        with Client(node.address) as client:
            for name in load.FUNCTIONS:
                load.deploy(client, name)
        yield node
