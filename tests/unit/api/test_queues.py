"""How a function's events are retried, by Lambda's members and by the node's own."""

from __future__ import annotations

import pytest

from runtimed.api.queues import Queues
from runtimed.model import errors
from runtimed.model.arn import Identity
from runtimed.model.queue import PutFunctionEventInvokeConfigRequest, UpdateFunctionEventInvokeConfigRequest
from runtimed.model.shape import UNSET
from tests.integration.queue_performer import Shelf


@pytest.fixture
def queues() -> Queues:
    return Queues(Identity(), Shelf())


async def test_our_own_members(queues: Queues) -> None:
    put = PutFunctionEventInvokeConfigRequest(function_name="f", retry_attempts=30, retry_delay_milliseconds=5)
    found = await queues.put_function_event_invoke_config(put)
    assert (found.maximum_retry_attempts, found.retry_delay_milliseconds) == (30, 5)
    update = UpdateFunctionEventInvokeConfigRequest(function_name="f", maximum_event_age_in_seconds=60)
    found = await queues.update_function_event_invoke_config(update)
    assert (found.maximum_retry_attempts, found.retry_delay_milliseconds) == (30, 5)
    put = PutFunctionEventInvokeConfigRequest(function_name="f", maximum_retry_attempts=1)
    found = await queues.put_function_event_invoke_config(put)
    assert (found.maximum_retry_attempts, found.retry_delay_milliseconds) == (1, UNSET)


async def test_one_setting_is_given_once(queues: Queues) -> None:
    put = PutFunctionEventInvokeConfigRequest(function_name="f", retry_attempts=5, maximum_retry_attempts=1)
    with pytest.raises(errors.InvalidParameterValue, match="give one of them"):
        await queues.put_function_event_invoke_config(put)
