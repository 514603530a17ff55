"""A full disk below the event log of a real node, whose state directory is a small file system of its own."""

from __future__ import annotations

import contextlib
import os

import pytest

from bench.calls import zipped
from bench.node import Node, await_true
from runtimed.client import Client, ClientError
from runtimed.model import errors
from tests.conftest import need_root
from tests.crash import census
from tests.crash.test_disk import SECONDS, SMALL, fill
from tests.outcomes import Outcome

SOURCE = """
def handler(event, context):
    return len(event["pad"])
"""
PAYLOAD = 150_000
ROOM = 1 << 18


def send(client: Client, number: int) -> str:
    return client.invoke_async("work", {"number": number, "pad": "x" * PAYLOAD})


def counters(node: Node) -> dict[str, int]:
    """Empty while the dispatcher is being replaced."""
    with contextlib.suppress(OSError, LookupError, KeyError, IndexError):
        return census.counters(node, census.by_kind(node)["dispatch"][0])
    return {}


@pytest.mark.case("fault", "the disk below the event log is full")
def test_a_full_disk_refuses_events_and_keeps_those_it_has(outcome: Outcome) -> None:
    need_root()
    with (
        Node.start({"RUNTIMED_EVENTS_RETRY_DELAY_MS": "10"}, prefix=SMALL) as node,
        Client(node.address, timeout=SECONDS) as client,
    ):
        client.deploy("work", zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=30)
        assert client.invoke("work", {"pad": "xy"}).value == 2
        client.pause_queue("work")
        send(client, 0)
        filler = fill(node)
        accepted = 1
        refusal = None
        while refusal is None and accepted < 500:
            try:
                send(client, accepted)
                accepted += 1
            except errors.ApiError as error:
                refusal = error
        assert isinstance(refusal, errors.ServiceError | errors.ServiceUnavailable), refusal
        assert "disk is full" in str(refusal) and "accepted before are safe" in str(refusal)
        assert counters(node)["events_full"] == 1
        found = {check.name: check for check in client.diagnose().checks}["event log"]
        assert "takes no events" in found.found and found.advice
        for _ in range(5):
            assert client.invoke("work", {"pad": "xyz"}).value == 3, "synchronous calls go on"
        with pytest.raises(errors.ApiError, match="disk is full"):
            send(client, accepted)
        # Those that were accepted are handled on the full disk, and settled there.
        before = counters(node)["events_succeeded"]
        os.truncate(
            filler, filler.stat().st_size - ROOM
        )  # for the database, which is as full; not for a file of events
        client.resume_queue("work")
        await_true(lambda: counters(node).get("events_waiting") == 0, SECONDS, "all to be handled")
        assert counters(node)["events_succeeded"] == before + accepted
        filler.unlink()
        await_true(lambda: takes(client), SECONDS, "events to be accepted again")
        await_true(lambda: counters(node).get("events_waiting") == 0, SECONDS, "them to be handled")
        now = counters(node)
        assert (now["events_full"], now["events_dead"], now["events_damaged_files"]) == (0, 0, 0)
    outcome("new events are refused with 503, accepted ones are handled and settled; with room again it takes events")


def takes(client: Client) -> bool:
    try:
        send(client, 0)
    except (errors.ApiError, ClientError):
        return False
    return True
