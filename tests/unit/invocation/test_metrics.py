"""What is said of functions, from slots made by hand."""

from __future__ import annotations

import struct
from typing import Any

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from runtimed.dispatch.counters import SLOT, Slot
from runtimed.invocation.metrics import Blocks, choose
from runtimed.model import wire

EMPTY = struct.pack("<240Q", *[0] * 240)
FAMILIES = {
    "invocations", "errors", "throttles", "timeouts", "cold_starts", "queued", "billed_seconds", "log_bytes",
    "provisioned_concurrency_invocations", "provisioned_concurrency_spillover_invocations",
    "concurrent_executions", "environments", "memory_peak_bytes", "duration_seconds", "init_duration_seconds",
    "queue_wait_seconds", "environments_idle", "environments_parked", "provisioned_concurrent_executions",
    "provisioned_concurrency_available", "provisioned_concurrency_utilization",
}  # fmt: skip


def slot(target: int, uid: bytes, **counts: int) -> Slot:
    found = dict.fromkeys(SLOT, 0) | counts
    return Slot(target=target, function_uid=uid, counts=found, durations=EMPTY, inits=EMPTY)


def whole(slot: Slot) -> Slot:
    raise AssertionError(f"{slot.target}: its histograms are there")


def told(slots: list[Slot], names: dict[bytes, str], demands: Any = None, most: int = 100) -> dict[str, float]:
    rows, _ = choose(slots, names, most)
    text = "".join(Blocks(whole).families(rows, demands or {}))
    return {
        f"{sample.name.removeprefix('runtimed_function_')}{''.join(sample.labels.values())}": sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_waits() -> None:
    found = told(
        [
            slot(1, b"a", calls=9, waited=5, wait_us=2_500_000, waits_1ms=1, waits_100ms=2, waits_longer=1),
            slot(2, b"a", calls=9, waited=1, wait_us=5000, waits_10ms=1),
            slot(3, b"b", calls=9),
        ],
        {b"a": "f", b"b": "g"},
    )
    buckets = {le: found[f"queue_wait_seconds_bucketf{le}"] for le in ("0.001", "0.01", "0.1", "1", "+Inf")}
    assert buckets == {"0.001": 1, "0.01": 2, "0.1": 4, "1": 4, "+Inf": 5}
    assert (found["queue_wait_seconds_countf"], found["queue_wait_seconds_sumf"]) == (5, 2.505)
    assert found["queued_totalf"] == 6
    assert not [name for name in found if name.startswith("queue_wait") and "g" in name.removeprefix("queue_wait")]


def test_each_family_is_there() -> None:
    busy = Slot(
        target=1, function_uid=b"a", counts=dict.fromkeys(SLOT, 1), durations=struct.pack("<240Q", *[1] * 240),
        inits=struct.pack("<240Q", *[1] * 240),
    )  # fmt: skip
    rows, left_out = choose([busy, slot(2, b"b", calls=9)], {b"a": "f", b"b": "g"}, 1)
    assert left_out == 1
    assert [row.labels for row in rows] == ['function="g"']
    rows, _ = choose([busy], {b"a": "f"}, 1)
    text = "".join(Blocks(whole).families(rows, {1: wire.Demand(waiting=1, busy=2, idle=3, starting=4)}))
    families = {family.name.removeprefix("runtimed_function_") for family in text_string_to_metric_families(text)}
    assert families == FAMILIES


def test_what_is_idle_parked_provisioned_and_in_use() -> None:
    """Over all targets of a function; nothing provisioned is no utilization."""
    found = told(
        [
            slot(1, b"a", environments_parked=2, provisioned_in_use=1),
            slot(2, b"a", environments_parked=1, provisioned_in_use=2),
            slot(3, b"b"),
        ],
        {b"a": "f", b"b": "g"},
        {1: wire.Demand(idle=5, busy=1, provisioned=2), 2: wire.Demand(idle=1, busy=3, provisioned=4)},
    )
    names = (
        "environments_idle", "environments_parked", "provisioned_concurrent_executions",
        "provisioned_concurrency_available", "provisioned_concurrency_utilization",
    )  # fmt: skip
    assert [found[f"{name}f"] for name in names] == [6, 3, 3, 6, 0.5]
    assert [found[f"{name}g"] for name in names] == [0, 0, 0, 0, 0]


def test_what_is_written_of_functions_that_stand_still_is_kept() -> None:
    """Until a revision or a level changes; who was not among them for a while is read whole again."""
    read: list[int] = []

    def whole(slot: Slot) -> Slot:
        read.append(slot.target)
        return msgspec.structs.replace(slot, durations=EMPTY, inits=EMPTY, whole=True)

    blocks = Blocks(whole)

    def says(revision: int, calls: int, busy: int = 0, *, bare: bool = True) -> tuple[float, float]:
        one = slot(1, b"a", calls=calls)
        if bare:
            one = msgspec.structs.replace(one, revision=revision, durations=b"", inits=b"", whole=False)
        rows, _ = choose([one], {b"a": "f"}, 100)
        families = text_string_to_metric_families("".join(blocks.families(rows, {1: wire.Demand(busy=busy)})))
        found = {sample.name: sample.value for family in families for sample in family.samples}
        return found["runtimed_function_invocations_total"], found["runtimed_function_concurrent_executions"]

    assert says(7, 1) == (1, 0) and read == [1]
    assert says(7, 2) == (1, 0) and read == [1]  # the same revision: not looked at
    assert says(7, 3, busy=1) == (3, 1) and read == [1, 1]
    assert says(8, 4, busy=1) == (4, 1) and read == [1, 1, 1]
    assert says(0, 5, bare=False) == (5, 0)  # nobody's revision: never kept
    assert says(0, 6, bare=False) == (6, 0)
    assert "".join(blocks.families([], {})) == ""
    assert says(8, 7, busy=1) == (7, 1) and read == [1, 1, 1, 1]
