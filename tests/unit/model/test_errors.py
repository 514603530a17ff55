"""One class per error, and back from its code."""

from __future__ import annotations

import grpc
import pytest

from runtimed.model import errors


@pytest.mark.parametrize("kind", errors.ERRORS)
def test_every_error_can_be_told_by_http_and_by_grpc(kind: type[errors.ApiError]) -> None:
    assert 400 <= kind.status < 600
    assert kind.grpc in grpc.StatusCode.__members__
    assert errors.error_class(kind.code, kind.grpc) is kind


def test_all_errors_are_in_the_list() -> None:
    assert set(errors.ERRORS) == set(errors.ApiError.__subclasses__())
    assert errors.error_class("SomethingNew") is errors.ServiceError
