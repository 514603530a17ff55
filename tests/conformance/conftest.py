"""A real node that callers of Lambda's API find over TCP, and a key for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boto3
import botocore.config
import pytest

from bench.node import Node, free_address
from runtimed.client import Client
from runtimed.model.key import CreatedKey
from tests.conftest import need_root


class Served(Node):
    """Listens on TCP."""

    invoke = ""


@pytest.fixture(scope="session")
def served() -> Iterator[Served]:
    need_root()
    Served.invoke = free_address()
    with Served.start({"RUNTIMED_INVOKE_LISTEN": Served.invoke, "RUNTIMED_LIMITS_UPLOAD_SECONDS": "60"}) as node:
        assert isinstance(node, Served)
        yield node


@pytest.fixture(scope="session")
def key(served: Served) -> CreatedKey:
    with Client(served.address) as client:
        return client.create_key("conformance")


def boto(key: CreatedKey, **changes: Any) -> Any:
    """AWS's own SDK, told where this node is and nothing else."""
    known = {"aws_access_key_id": key.key.key_id, "aws_secret_access_key": key.secret, **changes}
    return boto3.client(
        "lambda", endpoint_url=key.endpoint, region_name=key.region,
        config=botocore.config.Config(retries={"total_max_attempts": 1}, read_timeout=120), **known,
    )  # fmt: skip


@pytest.fixture
def caller(key: CreatedKey) -> Iterator[Any]:
    made = boto(key)
    yield made
    made.close()
