"""What a function writes, as it arrives on its log pipe."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit.bootstrap.conftest import Make
from tests.unit.bootstrap.dispatcher import Environment

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"


def lines_of(environment: Environment, event: Any = None, /, **configuration: Any) -> tuple[str, list[str]]:
    """The invocation's id and what it logged."""
    environment.start(**configuration)
    before = len(environment.read_log())
    request_id = environment.invoke(event).id
    return request_id, environment.read_log()[before:].splitlines()


def logging_handler(statement: str, prelude: str = "") -> str:
    return f"import logging, sys, os\n{prelude}\ndef handler(event, context):\n    {statement}\n"


@pytest.mark.parametrize(
    ("statement", "lines"),
    [
        ("print('a', 'b')", ["a b"]),
        ("print('ünïcode ☃')", ["ünïcode ☃"]),
        ("print('no end', end='')", ["no end"]),
        ("print('a', end=''); print('b')", ["ab"]),
        ("print('1'); sys.stderr.write('2\\n'); print('3'); os.write(1, b'4\\n'); print('5')", list("12345")),
        ("sys.stdout.buffer.write(b'raw')", ["raw"]),
        ("sys.stdout.write('a\\nb'); os.system('echo c')", ["a", "bc"]),
        ("context.log('one'); context.log(2)", ["one", "2"]),
        ("sys.stdout = None; context.log('still')", ["still"]),
        ("sys.stderr.write('\\ud800\\n')", ["\\ud800"]),
        ("print('x' * 100000)", ["x" * 100000]),
    ],
)
def test_prints(make: Make, statement: str, lines: list[str]) -> None:
    with make(logging_handler(statement)) as environment:
        assert lines_of(environment)[1] == lines


def test_prints_while_importing(make: Make) -> None:
    with make(logging_handler("pass", "print('imported', end='')")) as environment:
        environment.start()
        assert environment.read_log() == "imported"


def test_closed_streams_do_not_end_the_function(make: Make) -> None:
    source = logging_handler("sys.stdout.close(); os.close(1); logging.error('lost'); return 1")
    with make(source) as environment:
        environment.start()
        assert environment.invoke().json == 1
        assert environment.invoke().failed


def test_records(make: Make) -> None:
    statement = "log.info('not shown'); log.warning('took %d', 3); logging.error('two\\nlines')"
    with make(logging_handler(statement, "log = logging.getLogger('orders')")) as environment:
        request_id, lines = lines_of(environment)
    assert re.fullmatch(rf"\[WARNING\]\t{TIME}\t{request_id}\ttook 3", lines[0])
    assert re.fullmatch(rf"\[ERROR\]\t{TIME}\t{request_id}\ttwo", lines[1])
    assert lines[2:] == ["lines"]


@pytest.mark.parametrize("log_format", ["Text", "JSON"])
def test_times_are_utc_in_any_time_zone(make: Make, log_format: str) -> None:
    with make(logging_handler("logging.error('m')")) as environment:
        before = datetime.now(UTC) - timedelta(seconds=1)
        (line,) = lines_of(environment, log_format=log_format, environment={"TZ": "XYZ+5"})[1]
        found = re.search(TIME, line)
    assert found is not None
    assert before <= datetime.fromisoformat(found[0]) <= datetime.now(UTC)


def test_records_of_a_level_that_the_function_sets(make: Make) -> None:
    prelude = "logger = logging.getLogger()\nlogger.setLevel('DEBUG')\nlogger.info('init')"
    with make(logging_handler("logger.debug('shown')", prelude)) as environment:
        request_id, lines = lines_of(environment)
        assert re.search(rf"^\[INFO\]\t{TIME}\t\tinit$", environment.read_log(), re.MULTILINE)
    assert re.fullmatch(rf"\[DEBUG\]\t{TIME}\t{request_id}\tshown", lines[0])


def test_record_with_an_exception(make: Make) -> None:
    source = """\
        import logging

        def handler(event, context):
            try:
                {}["bolts"]
            except KeyError:
                logging.exception("caught")
        """
    with make(source) as environment:
        lines = lines_of(environment)[1]
    assert lines[0].endswith("\tcaught")
    assert lines[1] == "Traceback (most recent call last):"
    assert lines[-1] == "KeyError: 'bolts'"


def test_formatter_of_the_functions_own(make: Make) -> None:
    prelude = "logging.getLogger().handlers[0].setFormatter(logging.Formatter('%(aws_request_id)s|%(message)s'))"
    with make(logging_handler("logging.error('m')", prelude)) as environment:
        request_id, lines = lines_of(environment)
    assert lines == [f"{request_id}|m"]


def test_basic_config_changes_nothing(make: Make) -> None:
    with make(logging_handler("logging.warning('m')", "logging.basicConfig(format='x')")) as environment:
        assert lines_of(environment)[1][0].startswith("[WARNING]\t")


def test_json_records(make: Make) -> None:
    statement = "logging.getLogger('orders').info('took %d', 3, extra={'order': {'id': 7}}); logging.debug('not shown')"
    with make(logging_handler(statement)) as environment:
        request_id, lines = lines_of(environment, log_format="JSON", application_log_level="INFO")
    (line,) = (json.loads(line) for line in lines)
    assert re.fullmatch(TIME, line.pop("timestamp"))
    assert line == {
        "level": "INFO",
        "message": "took 3",
        "logger": "orders",
        "requestId": request_id,
        "order": {"id": 7},
    }


def test_json_record_with_an_exception(make: Make) -> None:
    source = """\
        import logging

        def handler(event, context):
            try:
                {}["bolts"]
            except KeyError:
                logging.exception("caught")
            print("plain")
        """
    with make(source) as environment:
        lines = lines_of(environment, log_format="JSON")[1]
        task = environment.task
    line = json.loads(lines[0])
    assert (line["level"], line["errorType"], line["errorMessage"]) == ("ERROR", "KeyError", "'bolts'")
    assert line["location"] == f"{task}/app.py:handler:7"
    assert line["stackTrace"][0].startswith(f'  File "{task}/app.py", line 5, in handler\n')
    assert lines[1:] == ["plain"]


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("TRACE", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        ("DEBUG", ["DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL"]),
        (None, ["INFO", "WARNING", "ERROR", "CRITICAL"]),
        ("INFO", ["INFO", "WARNING", "ERROR", "CRITICAL"]),
        ("WARN", ["WARNING", "ERROR", "CRITICAL"]),
        ("ERROR", ["ERROR", "CRITICAL"]),
        ("FATAL", ["CRITICAL"]),
    ],
)
def test_application_log_level(make: Make, level: str | None, shown: list[str]) -> None:
    with make(logging_handler("[logging.log(n, 'm') for n in (10, 20, 30, 40, 50)]")) as environment:
        lines = lines_of(environment, log_format="JSON", application_log_level=level)[1]
    assert [json.loads(line)["level"] for line in lines] == shown


def test_json_errors(make: Make) -> None:
    with make(logging_handler("raise ValueError('no\\nbolts')")) as environment:
        request_id, lines = lines_of(environment, log_format="JSON")
        task = environment.task
    (line,) = (json.loads(line) for line in lines)
    assert re.fullmatch(TIME, line.pop("timestamp"))
    assert line == {
        "level": "ERROR",
        "errorMessage": "no\nbolts",
        "errorType": "ValueError",
        "requestId": request_id,
        "stackTrace": [f"  File \"{task}/app.py\", line 4, in handler\n    raise ValueError('no\\nbolts')\n"],
    }


def test_tenant_in_json(make: Make) -> None:
    with make(logging_handler("logging.error('m')")) as environment:
        environment.start(log_format="JSON")
        environment.invoke(tenant="blue")
        assert json.loads(environment.read_log())["tenantId"] == "blue"
