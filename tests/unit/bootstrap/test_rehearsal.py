"""Environments that are started ahead of demand go through an invocation from nobody, which nobody gets to see."""

from __future__ import annotations

import pytest

from runtimed.model import wire
from tests.unit.bootstrap.conftest import Make

# Counts what the rehearsal's handler asks for.
COUNTING = """
import os, time

asked = []
time_of = time.time

def counted():
    asked.append(True)
    return time_of()

time.time = counted

def handler(event, context):
    return {
        "asked": len(asked),
        "id": context.aws_request_id,
        "arn": context.invoked_function_arn,
        "trace": os.environ.get("_X_AMZN_TRACE_ID"),
        "fds": sorted(map(int, os.listdir("/proc/self/fd")))[:-1],
    }
"""
BROKEN = """
import time

def broken():
    raise LookupError("mine")

time.time = broken

def handler(event, context):
    return context.get_remaining_time_in_millis() if event else None
"""


@pytest.mark.parametrize("ahead", [False, True])
def test_who_is_awaited_begins_at_once(make: Make, ahead: bool) -> None:
    with make(COUNTING) as environment:
        assert isinstance(environment.start(ahead=ahead), wire.InitDone)
        assert environment.invoke().json["asked"] == int(ahead)


def test_nothing_of_it_is_seen(make: Make) -> None:
    seen = []
    for ahead in (False, True):
        with make(COUNTING) as environment:
            environment.start(ahead=ahead)
            for _ in range(2):
                answer = environment.invoke()
                assert answer.json["id"] == answer.id
                assert answer.json["arn"] == "arn:aws:lambda:us-east-1:000000000000:function:f"
                assert answer.json["trace"] is None
            seen.append((answer.json["fds"], environment.read_log()))
    assert seen[0] == seen[1]
    assert seen[0][1] == ""


def test_what_fails_in_it_fails_when_it_is_asked_for(make: Make) -> None:
    with make(BROKEN) as environment:
        assert isinstance(environment.start(ahead=True), wire.InitDone)
        assert environment.invoke({}).json is None
        assert environment.read_log() == ""
        answer = environment.invoke({"really": True})
        assert (answer.failed, answer.error_type) == (True, "LookupError")
        assert "LookupError: mine" in environment.read_log()
