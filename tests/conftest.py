"""What all tests share: the rule that nothing may be skipped where everything must work, and the real node. Those that
run real processes have a second try (tests/second_try.py), and needing it is a fault to look for, not a pass."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import Any

import pytest

from bench.node import Node

pytest_plugins = ["tests.outcomes", "tests.second_try", "pytester"]
MUST_WORK = os.environ.get("RUNTIMED_MUST_WORK") == "1"
ROLES = ("launcher", "control", "dispatch")


def pytest_configure(config: pytest.Config) -> None:
    # Directories of earlier runs, which another run on this machine removes at the same time.
    config.addinivalue_line("filterwarnings", r"ignore:\(rm_rf\) :pytest.PytestWarning")
    # Its handlers would run in each fork of the tests', and not all of them come back.
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")
    # A shell ignores it for what it starts in the background, whose children ignore it, too; tests send it to some.
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests about another kind of machine (`only_where`) are left out, not skipped; so are long ones, unless they
    are asked for."""
    soaking = "soak" in config.getoption("-m")
    kept, left_out = [], []
    for item in items:
        marker = item.get_closest_marker("only_where")
        fits = marker is None or marker.args[0]
        (kept if fits and (soaking or item.get_closest_marker("soak") is None) else left_out).append(item)
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = kept


def fail_instead(report: Any) -> None:
    if MUST_WORK and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"RUNTIMED_MUST_WORK=1: this may not be skipped: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    fail_instead(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Iterator[None]:
    report = yield
    fail_instead(report)
    return report


def need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("a node makes sandboxes, which needs root")


@pytest.fixture(scope="session")
def shared_node() -> Iterator[Node]:
    need_root()
    with Node.start() as node:
        yield node


@pytest.fixture
def node(shared_node: Node) -> Iterator[Node]:
    """The session's node. It must come out of each test with the processes it went in with."""
    before = {role: pid for role, pid in shared_node.roles().items() if role in ROLES}
    yield shared_node
    assert shared_node.roles() == before, "a process of the node was lost or restarted: see its log"


@pytest.fixture
def own_node() -> Iterator[Node]:
    """A node of the test's own, for tests that kill parts of it."""
    need_root()
    with Node.start() as node:
        yield node
