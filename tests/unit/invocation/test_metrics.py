"""What is said of functions, from slots made by hand."""

from __future__ import annotations

import struct
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from runtimed.dispatch.counters import SLOT, Slot
from runtimed.invocation.metrics import Histograms, choose, of_functions
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


def told(slots: list[Slot], names: dict[bytes, str], demands: Any = None, most: int = 100) -> dict[str, float]:
    rows, _ = choose(slots, names, most)
    text = "".join(of_functions(rows, demands or {}, Histograms()))
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
    text = "".join(of_functions(rows, {1: wire.Demand(waiting=1, busy=2, idle=3, starting=4)}, Histograms()))
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


def test_histograms_of_functions_that_stand_still_are_kept() -> None:
    """What the dispatcher sorted in after it was counted is seen all the same; what is gone is forgotten."""
    counted = slot(1, b"a", calls=1, success=1)
    one = struct.pack("<240Q", *[0] * 100, 1, *[0] * 139)
    sorted_in = Slot(target=1, function_uid=b"a", counts=dict(counted.counts), durations=one, inits=EMPTY)
    histograms = Histograms()

    def runs(*slots: Slot) -> list[float]:
        rows, _ = choose(slots, {b"a": "f", b"b": "g"}, 100)
        families = text_string_to_metric_families("".join(of_functions(rows, {}, histograms)))
        samples = [sample for family in families for sample in family.samples]
        return [sample.value for sample in samples if sample.name == "runtimed_function_duration_seconds_count"]

    assert runs(counted) == [0]
    assert runs(sorted_in) == [1]
    assert runs(counted) == [1]  # kept: read twice with these counters
    assert runs(slot(1, b"a", calls=2, success=1), slot(2, b"b", calls=1)) == [0, 0]
    assert runs(slot(2, b"b", calls=1)) == [0]
    assert runs(sorted_in) == [1]
    assert runs() == []
