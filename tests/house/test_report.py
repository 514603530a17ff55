"""The README's table of abuse and crashes has one row for each case in the tests, and cases cannot stay silent."""

from __future__ import annotations

import pathlib

import pytest

from tests.house.tree import ROOT
from tests.outcomes import BEGIN, END, Row, declared, main, table, tabled

CASES = """
    import pytest

    @pytest.mark.case("abuse", "told")
    def test_told(outcome):
        outcome("nothing happened")

    @pytest.mark.case("abuse", "silent")
    def test_silent(outcome):
        pass

    @pytest.mark.case("abuse", "without")
    def test_without():
        pass

    @pytest.mark.case("mishap", "of no group")
    def test_of_no_group(outcome):
        outcome("nothing")

    def test_unmarked(outcome):
        outcome("nothing")
"""


def test_readme_has_a_row_for_each_case() -> None:
    cases = declared()
    assert len(set(cases)) == len(cases), "two tests have one name"
    assert sorted(tabled((ROOT / "README.md").read_text())) == sorted(cases), "run: sudo ./dev report --write"


def test_cases_must_speak(pytester: pytest.Pytester) -> None:
    pytester.makeconftest('pytest_plugins = ["tests.outcomes"]')
    pytester.makepyfile(CASES)
    markers = ("-o", "markers=case(group, name): a case")
    done = pytester.runpytest_subprocess("-p", "no:cacheprovider", *markers, "--rows", "rows.json")
    done.assert_outcomes(passed=1, failed=2, errors=2)
    told = (pytester.path / "rows.json").read_text()
    assert "nothing happened" in told
    assert "silent" not in told


def test_table_round_trips(tmp_path: pathlib.Path) -> None:
    rows = [Row("crash", "the launcher", "it is back"), Row("abuse", "fork bomb", "pids.max holds")]
    made = table(rows)
    assert tabled(f"{BEGIN}\n{made}\n{END}") == [("abuse", "fork bomb"), ("crash", "the launcher")]
    assert tabled(made) == []


def test_main_replaces_the_table(tmp_path: pathlib.Path) -> None:
    readme, rows = tmp_path / "README.md", tmp_path / "rows.json"
    readme.write_text(f"head\n{BEGIN}\nold\n| abuse | of no test | x | |\n{END}\ntail\n")
    rows.write_text('[{"group": "abuse", "case": "fork bomb", "outcome": "refused"}]')
    main([str(rows), str(readme)])
    text = readme.read_text()
    assert text.startswith("head\n") and text.endswith("\ntail\n") and "old" not in text
    assert tabled(text) == [("abuse", "fork bomb")]
