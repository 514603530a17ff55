"""Prometheus' text, read back by prometheus-client's parser."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from runtimed.dispatch.counters import bucket_floor
from runtimed.invocation.metrics import DURATIONS, FINE, MIDDLES, spread
from runtimed.telemetry.exposition import Bounds, family, histogram, label, series

FINE_COUNTS = st.lists(st.integers(0, 3000), min_size=FINE, max_size=FINE)


@given(st.text())
def test_labels_are_read_as_they_were_written(value: str) -> None:
    if "\r" in value or not value.isprintable():
        value = value.encode("unicode_escape").decode()
    [read] = text_string_to_metric_families(family("x", "gauge", "help", [(label("function", value), 1.5)]))
    [sample] = read.samples
    assert (sample.name, sample.labels, sample.value) == ("runtimed_x", {"function": value}, 1.5)


def test_no_samples_no_family() -> None:
    assert family("x", "counter", "help", []) == histogram("x", "help", []) == ""


@given(FINE_COUNTS)
def test_spread_counts_each_to_where_its_middle_lies(counts: list[int]) -> None:
    data = b"".join(count.to_bytes(8, "little") for count in counts)
    cumulative, total = spread(DURATIONS, [data])
    for text, found in zip(DURATIONS.texts, cumulative, strict=True):
        assert found == sum(n for n, middle in zip(counts, MIDDLES, strict=True) if middle / 1e6 <= float(text)), text
    exact = sum(n * middle for n, middle in zip(counts, MIDDLES, strict=True)) / 1e6
    assert abs(total - exact) <= 1e-9 * max(1.0, exact)
    twice, sum_of_both = spread(DURATIONS, [data, b"", data])
    assert twice == [2 * count for count in cumulative]
    assert abs(sum_of_both - 2 * total) <= 1e-9 * max(1.0, exact)


def test_histograms_are_read_as_they_were_written() -> None:
    bounds = Bounds((0.001, 1), MIDDLES)
    write = series("x_seconds", bounds)
    written = [write(label("function", name), [1, 2, 4], 2.5) for name in ("a", "b")]
    [read] = text_string_to_metric_families(histogram("x_seconds", "help", written))
    assert read.type == "histogram"
    assert [(s.name.removeprefix("runtimed_x_seconds_"), s.labels.get("le"), s.value) for s in read.samples[:5]] == [
        ("bucket", "0.001", 1),
        ("bucket", "1", 2),
        ("bucket", "+Inf", 4),
        ("sum", None, 2.5),
        ("count", None, 4),
    ]
    assert [sample.labels["function"] for sample in read.samples] == ["a"] * 5 + ["b"] * 5
    [read] = text_string_to_metric_families(histogram("y", "help", [series("y", bounds)("", [0, 0, 0], 0.0)]))
    assert len(read.samples) == 5


def test_middles_ascend() -> None:
    assert sorted(MIDDLES) == MIDDLES
    assert all(bucket_floor(number) <= middle <= bucket_floor(number + 1) for number, middle in enumerate(MIDDLES))
