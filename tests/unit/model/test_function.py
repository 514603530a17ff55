"""What no single member's type can say about a function."""

from __future__ import annotations

import pytest

from runtimed.model import errors
from runtimed.model.function import (
    RESERVED_VARIABLES,
    ApplicationLogLevel,
    Environment,
    LogFormat,
    LoggingConfig,
    check_environment,
    check_logging,
)
from runtimed.model.runtime import newest, python_minor


@pytest.mark.parametrize("name", sorted(RESERVED_VARIABLES))
def test_reserved_variables_are_refused(name: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match=name):
        check_environment(Environment(variables={"MINE": "1", name: "x"}))


def test_variables_take_four_kilobytes_of_json() -> None:
    around = len('{"AB":""}')
    check_environment(Environment(variables={"AB": "x" * (4096 - around)}))
    with pytest.raises(errors.InvalidParameterValue, match="4097 bytes"):
        check_environment(Environment(variables={"AB": "x" * (4097 - around)}))
    check_environment(Environment())


def test_levels_need_the_json_format() -> None:
    check_logging(LoggingConfig(log_format=LogFormat.JSON, application_log_level=ApplicationLogLevel.DEBUG))
    check_logging(LoggingConfig())
    with pytest.raises(errors.InvalidParameterValue, match="JSON"):
        check_logging(LoggingConfig(application_log_level=ApplicationLogLevel.DEBUG))


def test_versions_of_python_are_numbers() -> None:
    assert newest(["python3.9", "python3.13", "python3.10", "nodejs22.x"]) == "python3.13"
    assert newest(["nodejs22.x"]) is None
    assert (python_minor("python3.11"), python_minor("python3.11.1"), python_minor("python2.7")) == (11, None, None)
