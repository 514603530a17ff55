"""A second try for tests that run real processes, where a machine that does too much at a time fails the first.

Who needs a second try is a fault to look for, not a pass: a race of the test's or of ours. The summary counts them
("rerun"), names them and prints the first failure in full. Who fails twice is red, and after MOST of them nobody gets
one any more. Before the second try every fixture of the first is torn down, those of modules and of the session too:
a node that the failure left broken is not handed on. What its frames held (sockets that nobody came to close) is freed
there and then, without a complaint: freed later, it would be held against a test that has nothing to do with it. For
the same reason garbage is collected at the end of each module. RUNTIMED_RERUNS=0 turns the second try off, for whoever
hunts such a fault.
"""

from __future__ import annotations

import contextlib
import gc
import os
import sys
import warnings
from collections.abc import Iterator

import pytest
import pytest_timeout
from _pytest.runner import runtestprotocol
from _pytest.unraisableexception import collect_unraisable

# Tests of what they are named after, below tests/. The others are pure, or compare files: they fail for a reason.
REAL = ("conformance", "crash", "integration", "sandbox", "security")
MOST = 8  # in one run
used_key = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[used_key] = 0 if os.environ.get("RUNTIMED_RERUNS", "1") != "0" else MOST


def folder(item: pytest.Item) -> str:
    """The one below tests/ that it is in."""
    return item.path.relative_to(item.config.rootpath).parts[1]


def attempt(item: pytest.Item, nextitem: pytest.Item | None) -> list[pytest.TestReport]:
    """Fixtures of the session end with the last test of each folder, so that what is wrong with their end is that
    test's, and has its second try, too."""
    last = nextitem is None or folder(nextitem) != folder(item)
    return runtestprotocol(item, log=False, nextitem=None if last else nextitem)


def tear_everything_down(item: pytest.Item) -> pytest.TestReport:
    """Whatever the item's first try left, of every scope; what that came to."""
    call = pytest.CallInfo.from_call(lambda: item.session._setupstate.teardown_exact(None), "teardown")
    forget_frames()
    return pytest.TestReport.from_item_and_call(item, call)


def forget_frames() -> None:
    """Of the exception that ended a first try, with what they hold; its text is in the report."""
    for name in ("last_exc", "last_type", "last_value", "last_traceback"):
        with contextlib.suppress(AttributeError):
            delattr(sys, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """What a module forgot to close is said at its own end."""
    yield
    if folder(item) in REAL and (nextitem is None or nextitem.path != item.path):
        gc.collect()
        collect_unraisable(item.config)


def set_timer_again(item: pytest.Item) -> None:
    """The one of the whole protocol has been used by the first try."""
    settings = pytest_timeout._get_item_settings(item)
    if settings.timeout:
        item.ihook.pytest_timeout_cancel_timer(item=item)
        item.ihook.pytest_timeout_set_timer(item=item, settings=settings)


def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> bool | None:
    if folder(item) not in REAL:
        return None
    hunted = item.config.stash[used_key] >= MOST or item.get_closest_marker("soak") is not None
    item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    reports = attempt(item, nextitem)
    if not hunted and any(report.failed for report in reports):
        item.config.stash[used_key] += 1
        reports.append(tear_everything_down(item))
        for report in reports:
            if report.failed:
                report.outcome = "rerun"
                item.ihook.pytest_runtest_logreport(report=report)
        set_timer_again(item)
        reports = attempt(item, nextitem)
    for report in reports:
        item.ihook.pytest_runtest_logreport(report=report)
    item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    return True


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, tuple[str, dict[str, bool]]] | None:
    return ("rerun", "R", ("RERUN", {"yellow": True})) if report.outcome == "rerun" else None


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    again = terminalreporter.stats.get("rerun", [])
    if not again:
        return
    terminalreporter.section("FIRST TRIES THAT FAILED", yellow=True)
    for report in again:
        terminalreporter.section(f"{report.nodeid} ({report.when})", "_", yellow=True)
        terminalreporter.line(report.longreprtext)
        for name, text in report.sections:
            terminalreporter.section(name, "-")
            terminalreporter.line(text)
    terminalreporter.section("needed a second try: a fault to look for, not a pass", yellow=True)
    for report in again:
        terminalreporter.line(f"RERUN {report.nodeid} ({report.when})")
