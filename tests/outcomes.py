"""What came of each hostile or broken situation: rows that tests write and `./dev report` prints as a table.

A test about such a situation bears `@pytest.mark.case(group, name)` and takes the fixture `outcome`, which it tells
in one sentence what came of it. The words of the mark are literals, so that a house test can compare the README's table
with the tests without running them. As a program: `python -m tests.outcomes ROWS [README]` prints the table of the rows
in a file, or puts them into the README's table; rows there that were not run now stay, those of no test go.
"""

from __future__ import annotations

import ast
import pathlib
import re
import sys
from collections.abc import Iterator

import msgspec
import pytest

from tests.neighbour import Latency

ROOT = pathlib.Path(__file__).resolve().parent.parent
GROUPS = ("abuse", "escape", "crash", "fault")
BEGIN, END = "<!-- report -->", "<!-- /report -->"
HEAD = ["| | situation | what came of it | a neighbour's p50 / p99, alone → beside it |", "|---|---|---|---|"]
LINE = re.compile(rf"^(\| ({'|'.join(GROUPS)}) \| (.+?) \|.*)$", re.MULTILINE)
rows_key = pytest.StashKey[list["Row"]]()


class Row(msgspec.Struct, frozen=True):
    """One situation and what came of it. Latencies: of a neighbour function's calls, without and with it."""

    group: str
    case: str
    outcome: str
    alone: Latency | None = None
    beside: Latency | None = None


class Outcome:
    """The fixture: called once by a test that has seen what it expects."""

    def __init__(self, group: str, case: str) -> None:
        self.group, self.case = group, case
        self.row: Row | None = None

    def __call__(self, text: str, neighbour: tuple[Latency, Latency] | None = None) -> None:
        """`text`: what a caller and the node saw, one sentence without a full stop."""
        assert self.row is None, "a case has one outcome"
        alone, beside = neighbour or (None, None)
        self.row = Row(self.group, self.case, text, alone, beside)


@pytest.fixture
def outcome(request: pytest.FixtureRequest) -> Iterator[Outcome]:
    marker = request.node.get_closest_marker("case")
    assert marker is not None, "a test with an outcome bears @pytest.mark.case(group, name)"
    group, case = marker.args
    assert group in GROUPS, f"{group}: one of {GROUPS}"
    told = Outcome(group, case)
    yield told
    if told.row is not None:
        request.config.stash[rows_key].append(told.row)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--rows", type=pathlib.Path, metavar="FILE", help="write what came of the cases there, as JSON")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[rows_key] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """A case that says nothing has not been looked at."""
    yield
    told = getattr(item, "funcargs", {}).get("outcome")
    if item.get_closest_marker("case") is not None:
        assert told is not None and told.row is not None, "a case says what came of it: call outcome(...)"


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--rows")
    if path is not None:
        path.write_bytes(msgspec.json.encode(session.config.stash[rows_key]))


def declared() -> list[tuple[str, str]]:
    """(group, case) of every mark in the tests, read and not run."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "pytest.mark.case":
                group, case = (ast.literal_eval(argument) for argument in node.args)
                found.append((group, case))
    return found


def tabled(readme: str) -> list[tuple[str, str]]:
    """(group, case) of every row in the README's table."""
    table = readme.partition(BEGIN)[2].partition(END)[0]
    return [(group, case) for _, group, case in LINE.findall(table)]


def line(row: Row) -> str:
    """Of the table. Latency: p50 / p99 in milliseconds, beside a no-op → beside the abuse."""
    latency = f"{row.alone} → {row.beside} ms" if row.alone and row.beside else ""
    return f"| {row.group} | {row.case} | {row.outcome} | {latency} |"


def table(rows: list[Row], old: str = "") -> str:
    """Markdown; `old`: a table whose lines stay where no row is newer and a test bears their case."""
    known = set(declared())
    lines = {(group, case): text for text, group, case in LINE.findall(old) if (group, case) in known}
    lines |= {(row.group, row.case): line(row) for row in rows}
    ordered = sorted(lines, key=lambda key: (GROUPS.index(key[0]), key[1]))
    return "\n".join([*HEAD, *(lines[key] for key in ordered)])


def main(arguments: list[str]) -> None:
    rows = msgspec.json.decode(pathlib.Path(arguments[0]).read_bytes(), type=list[Row])
    if len(arguments) == 1:
        print(table(rows))
        return
    readme = pathlib.Path(arguments[1])
    before, _, rest = readme.read_text().partition(BEGIN)
    old, _, after = rest.partition(END)
    readme.write_text(f"{before}{BEGIN}\n{table(rows, old)}\n{END}{after}")


if __name__ == "__main__":
    main(sys.argv[1:])
