"""The second try of tests that run real processes: one failure is told, two are red, nothing shared is handed on."""

from __future__ import annotations

import os

import pytest

TRIES = """
    import pathlib
    import pytest

    made = []
    left = pathlib.Path(__file__).with_name("left")

    @pytest.fixture(scope="session")
    def for_all():
        made.append("for all")
        yield len(made)
        made.append("end of it")

    @pytest.fixture(scope="module")
    def for_file(for_all):
        made.append("for the file")

    def test_right(for_file):
        assert made == ["for all", "for the file"]

    def test_wrong_once(for_all, for_file):
        print("what it said")
        assert for_all > 1, "the first time"
        assert made == ["for all", "for the file", "end of it"] + ["for all", "for the file"]

    def test_wrong_twice(tmp_path):
        assert not tmp_path.exists()

    @pytest.fixture
    def ends_badly():
        yield
        made.append("bad end")
        assert made.count("bad end") > 1

    def test_ends_badly(ends_badly):
        pass

    @pytest.fixture(scope="session")
    def begins_badly():
        made.append("bad beginning")
        assert made.count("bad beginning") > 1

    def test_begins_badly(begins_badly):
        pass

    @pytest.fixture(scope="session")
    def ends_badly_at_last():
        yield
        made.append("bad end at last")
        assert made.count("bad end at last") > 1

    @pytest.mark.timeout(3)
    def test_last(ends_badly_at_last):
        import time
        if "late" not in made:
            made.append("late")
            time.sleep(60)
"""
PURE = """
    done = []

    def test_pure():
        done.append("once")
        assert len(done) > 1
"""


def run(pytester: pytest.Pytester, folder: str, source: str, *options: str, tries: str = "1") -> pytest.RunResult:
    os.environ["RUNTIMED_RERUNS"] = tries  # pytester restores the environment
    pytester.makeconftest('pytest_plugins = ["tests.second_try"]')
    after = "import gc\n\ndef test_after():\n    gc.collect()\n"
    pytester.makepyfile(**{f"tests/{folder}/test_it": source, "tests/unit/test_after": after})
    return pytester.runpytest_subprocess("-p", "no:cacheprovider", "-o", "markers=soak: no second try", *options)


def test_a_second_try(pytester: pytest.Pytester) -> None:
    """A teardown that fails, a fixture that cannot be made, a time-out, and the end of the session's fixtures too."""
    done = run(pytester, "crash", TRIES)
    done.assert_outcomes(passed=6, failed=1)
    assert done.ret == 1
    done.stdout.fnmatch_lines([
        "*FIRST TRIES THAT FAILED*",
        "*test_wrong_once (call)*",
        "*the first time*",
        "*what it said*",
        "RERUN tests/crash/test_it.py::test_wrong_once (call)",
        "RERUN tests/crash/test_it.py::test_wrong_twice (call)",
        "RERUN tests/crash/test_it.py::test_ends_badly (teardown)",
        "RERUN tests/crash/test_it.py::test_begins_badly (setup)",
        "RERUN tests/crash/test_it.py::test_last (call)",
        "RERUN tests/crash/test_it.py::test_last (teardown)",
        "*1 failed, 6 passed, 6 rerun*",
    ])  # fmt: skip


def test_none_when_it_is_turned_off(pytester: pytest.Pytester) -> None:
    done = run(pytester, "crash", TRIES, tries="0")
    assert done.parseoutcomes()["failed"] == 3 and "rerun" not in done.parseoutcomes()


def test_none_for_pure_tests(pytester: pytest.Pytester) -> None:
    run(pytester, "machines", PURE).assert_outcomes(passed=1, failed=1)


def test_not_without_end(pytester: pytest.Pytester) -> None:
    many = "import pytest\n\n@pytest.mark.parametrize('n', range(20))\ndef test_wrong(n):\n    assert False\n"
    assert run(pytester, "crash", many).parseoutcomes() == {"failed": 20, "passed": 1, "rerun": 8}


def test_none_in_the_long_forms(pytester: pytest.Pytester) -> None:
    long = "import pytest\n\n@pytest.mark.soak\ndef test_wrong():\n    assert False\n"
    assert "rerun" not in run(pytester, "crash", long).parseoutcomes()


LEAKS = """
    import socket

    class Holder:
        def __init__(self):
            self.itself = self  # only a collection of garbage frees it
            self.socket = socket.socket()

    tries = []

    def test_wrong_once():
        held = Holder()
        tries.append("once")
        assert len(tries) > {wrong}
        {end}
"""


def test_what_a_first_try_left_open_is_nobody_elses(pytester: pytest.Pytester) -> None:
    done = run(pytester, "crash", LEAKS.format(wrong=1, end="held.socket.close()"), "-p", "no:asyncio", "-W", "error")
    assert done.parseoutcomes() == {"passed": 2, "rerun": 1}


def test_what_a_module_left_open_is_its_own(pytester: pytest.Pytester) -> None:
    done = run(pytester, "crash", LEAKS.format(wrong=0, end="pass"), "-p", "no:asyncio", "-W", "error", tries="0")
    assert done.parseoutcomes() == {"passed": 2, "errors": 1}
    done.stdout.fnmatch_lines(["*ERROR at teardown of test_wrong_once*"])
