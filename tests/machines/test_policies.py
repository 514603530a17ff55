"""The simulator's judgement, and the policies that it compares, on days short enough to reckon by hand."""

from __future__ import annotations

import json
import random
from array import array
from pathlib import Path

import pytest

from bench.policies import MINUTE_MS, Fixed, Hybrid, Policy, ours
from bench.simulate import POLICIES, Outcome, Tally, beside, main, replay, simulate, table
from bench.traces import generate, trace
from bench.traces.trace import Function
from runtimed.machines.keep_alive import Window


def function(*calls: tuple[float, float], name: str = "f", memory: float = 100.0) -> Function:
    return Function(name, memory, array("d", [at for at, _ in calls]), array("d", [lasts for _, lasts in calls]))


def test_gaps_are_those_of_the_most_recently_used() -> None:
    """Two at once, then one at a time: the second environment is idle from its only use on."""
    tally = Tally(Fixed(1))
    replay(function((0, 10_000), (5_000, 10_000), (20_000, 1_000), (90_000, 1_000)), [tally], 200_000)
    # 0 and 5,000 find nothing; 20,000 finds the one free since 15,000; 90,000 finds it gone since 81,000.
    assert tally.cold == 3
    # 5 s; a minute until 81,000; the other from 10,000 for a minute; the last from 91,000 for a minute.
    assert tally.idle_ms == 5_000 + 60_000 + 60_000 + 60_000


def test_one_that_comes_back_is_there_again() -> None:
    class Twice(Fixed):
        def windows(self, alone: bool = True) -> tuple[Window, ...]:
            return (Window(0, 1_000), Window(50_000, 70_000))

    tally = Tally(Twice(0))
    replay(function((0, 0), (60_000, 0), (90_000, 0)), [tally], 100_000)
    assert (tally.cold, tally.launches, tally.idle_ms) == (2, 1, 1_000 + 10_000 + 1_000 + 1_000)


def test_the_hybrid_histogram_as_published() -> None:
    hybrid: Policy = Hybrid()
    assert hybrid.windows() == (Window(0, 240 * MINUTE_MS),), "the standard keep-alive, as long as nothing is known"
    for _ in range(100):
        hybrid.observe(30.5 * MINUTE_MS)
    [window] = hybrid.windows()
    assert window.start == pytest.approx(27 * MINUTE_MS)
    assert window.end == pytest.approx(34.1 * MINUTE_MS)
    for _ in range(200):
        hybrid.observe(300 * MINUTE_MS)
    [window] = hybrid.windows()
    assert (window.start, window.end) == (pytest.approx(255 * MINUTE_MS), pytest.approx(345 * MINUTE_MS))


def test_of_what_is_short_nothing_is_ended() -> None:
    hybrid = Hybrid()
    for _ in range(100):
        hybrid.observe(10_000)
    assert hybrid.windows() == (Window(0, pytest.approx(1.1 * MINUTE_MS)),)


def test_a_drawn_day_is_the_same_for_the_same_seed_and_ours_is_ahead_on_it() -> None:
    functions = [one for one in generate.day(60, 3) if len(one.arrivals) < 2_000]
    again = [one for one in generate.day(60, 3) if len(one.arrivals) < 2_000]
    assert functions == again
    assert functions != [one for one in generate.day(60, 4) if len(one.arrivals) < 2_000]
    for one in functions:
        assert list(one.arrivals) == sorted(one.arrivals)
        assert 0 <= one.arrivals[0] <= one.arrivals[-1] < generate.DAY_MS + 60_000
    # These are seldom invoked: where the published policy keeps most, a cold start must be worth more to be ahead.
    policies = POLICIES | {"dear": ours(1_800)}
    by_name = {one.policy: one for one in simulate(functions, policies, generate.DAY_MS)}
    for mine, peer in (("ours", "fixed 10 min"), ("ours", "fixed 20 min"), ("dear", "hybrid histogram")):
        assert by_name[mine].cold_share < by_name[peer].cold_share
        assert by_name[mine].idle_mb_hours < by_name[peer].idle_mb_hours
    assert "hybrid histogram" in table(list(by_name.values()))


HEAD_2019 = "HashOwner,HashApp,HashFunction,Trigger," + ",".join(map(str, range(1, 1441)))


def test_the_layout_of_2019(tmp_path: Path) -> None:
    counts = ["0"] * 1440
    counts[0], counts[1439] = "2", "1"
    (tmp_path / "calls").write_text(f"{HEAD_2019}\no,a,f,http,{','.join(counts)}\no,a,g,http,{','.join(counts)}\n")
    (tmp_path / "durations").write_text("HashOwner,HashApp,HashFunction,Average,Count\no,a,f,250,3\n")
    (tmp_path / "memory").write_text("HashOwner,HashApp,SampleCount,AverageAllocatedMb\no,a,3,99\n")
    one, other = trace.azure_2019(tmp_path / "calls", tmp_path / "durations", tmp_path / "memory", random.Random(1))
    assert (one.name, one.memory_mb, list(one.durations)) == ("f", 99, [250, 250, 250])
    assert 0 <= one.arrivals[0] <= one.arrivals[1] < 60_000 < 1439 * 60_000 <= one.arrivals[2] < 1440 * 60_000
    assert list(other.durations) == [trace.DEFAULT_MS] * 3


def test_the_layout_of_2021(tmp_path: Path) -> None:
    (tmp_path / "calls").write_text("app,func,end_timestamp,duration\na,f,10.5,0.5\na,f,2,1\nb,f,0.1,0.2\n")
    one, other = trace.azure_2021(tmp_path / "calls")
    assert (list(one.arrivals), list(one.durations)) == ([1_000, 10_000], [1_000, 500])
    assert list(other.arrivals) == [0]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("app,func,end_timestamp\n", "no column duration"),
        ("app,func,end_timestamp,duration\na,f,soon,1\n", "line 2: end_timestamp is 'soon'"),
        ("app,func,end_timestamp,duration\na,f,nan,1\n", "line 2: end_timestamp is 'nan'"),
        ("app,func,end_timestamp,duration\na,f,1,-1\n", "line 2: duration is '-1'"),
        ("app,func,end_timestamp,duration\na,f,1\n", "line 2: other columns"),
        ("", "no column app, duration, end_timestamp, func"),
        ("app,func,end_timestamp,duration\n\xff,f,1,1\n", "not a text file"),
        ("app,func,end_timestamp,duration\n" + "a" * (2 << 20) + ",f,1,1\n", "field larger than"),
    ],
)
def test_files_in_another_layout_are_told(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "calls").write_text(text, encoding="latin-1")
    with pytest.raises(trace.TraceError, match=told):
        trace.azure_2021(tmp_path / "calls")


def test_the_busiest_are_left_out_and_so_are_those_never_called(tmp_path: Path) -> None:
    rows = [
        ",".join(["o", "a", name, "http", count, *["0"] * 1439]) for name, count in (("f", "5"), ("g", "6"), ("h", "0"))
    ]
    (tmp_path / "calls").write_text("\n".join([HEAD_2019, *rows]))
    assert [one.name for one in trace.azure_2019(tmp_path / "calls", None, None, random.Random(1), busiest=5)] == ["f"]


def test_a_curve_is_compared_where_it_passes_its_peer() -> None:
    def outcome(cold: int, memory: float) -> Outcome:
        return Outcome("one", 100, cold, memory, 0, [])

    curve = [outcome(10, 300.0), outcome(40, 100.0), outcome(20, 200.0)]
    found = beside(curve, outcome(30, 250.0))
    assert (found.memory_at_its_cold_share, found.cold_share_at_its_memory) == pytest.approx((150 / 250, 0.15))
    found = beside(curve, outcome(50, 400.0))
    assert (found.memory_at_its_cold_share, found.cold_share_at_its_memory) == (None, None)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr("sys.argv", ["simulate", *map(str, arguments)])
    assert main() == 0


def test_as_it_is_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "calls").write_text("app,func,end_timestamp,duration\na,f,10.5,0.5\na,f,200,1\nb,f,0.1,0.2\n")
    run(monkeypatch, "--azure-2021", tmp_path / "calls", "--keep-alive-seconds", 100, 600, "--json")
    out, err = capsys.readouterr()
    told = json.loads(out)
    assert (told["functions"], told["invocations"]) == (2, 3)
    assert [one["policy"] for one in told["policies"]][-2:] == ["ours, 100 s", "ours, 600 s"]
    assert [one["peer"] for one in told["beside"]] == [name for name in POLICIES if name != "ours"]
    assert "2 functions, 3 invocations" in err
    run(monkeypatch, "--azure-2021", tmp_path / "calls", "--functions", 1)
    assert "hybrid histogram" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--azure-2021", "no such file"], "No such file"),
        (["--azure-2021", "."], "Is a directory"),
        (["--azure-2021", "none"], "no invocation"),
        (["--azure-2021", "none", "--azure-2019", "none"], "one trace at a time"),
        (["--durations", "none"], "name it with --azure-2019"),
        (["--azure-2021", "none", "--draws", "2"], "nothing is drawn"),
        (["--functions", "0"], "whole number above 0"),
        (["--keep-alive-seconds", "nan"], "number of seconds"),
    ],
)
def test_what_cannot_be_replayed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "none").write_text("app,func,end_timestamp,duration\n")
    with pytest.raises(SystemExit) as left:
        run(monkeypatch, *arguments)
    assert left.value.code == 2
    assert told in capsys.readouterr().err
