"""The requests that both clients make from what their methods are given."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import UNSET, UnsetType

from runtimed.client.flows import Settings, encode_event
from runtimed.model import errors, quotas
from runtimed.model.function import UpdateFunctionConfigurationRequest
from runtimed.model.invocation import InvocationType, InvokeRequest, LogType
from runtimed.model.log import TailLogsRequest
from runtimed.model.node import GetStatisticsRequest, StatisticsOrder, WatchStatisticsRequest

if TYPE_CHECKING:
    from datetime import datetime

INVOKE_SECONDS = quotas.TIMEOUT_SECONDS_MAX + 60.0
"""Longer than any function may run, its init phase included."""
UPLOAD_SECONDS = 900.0


def update_configuration(
    name: str, revision_id: str | UnsetType, settings: Settings
) -> UpdateFunctionConfigurationRequest:
    return UpdateFunctionConfigurationRequest(function_name=name, revision_id=revision_id, **settings.members())


def invoke(
    name: str,
    event: Any,
    payload: bytes | None,
    qualifier: str,
    log_tail: bool,
    client_context: dict[str, Any] | None,
    dry_run: bool,
) -> InvokeRequest:
    data = encode_event(event, payload)
    if len(data) > quotas.PAYLOAD_BYTES:
        raise errors.RequestTooLarge(
            f"Payload: {len(data)} bytes are more than the {quotas.PAYLOAD_BYTES} that an invocation takes. "
            "Pass a reference to the data instead."
        )
    return InvokeRequest(
        function_name=name,
        qualifier=qualifier,
        invocation_type=InvocationType.DRY_RUN if dry_run else InvocationType.REQUEST_RESPONSE,
        log_type=LogType.TAIL if log_tail else LogType.NONE,
        client_context=base64.b64encode(msgspec.json.encode(client_context)).decode() if client_context else "",
        payload=data,
    )


def tail_logs(name: str, follow: bool, since: datetime | None, request_id: str) -> TailLogsRequest:
    return TailLogsRequest(
        function_name=name,
        follow=follow,
        since=UNSET if since is None else since.astimezone(),
        request_id=request_id.lower(),
    )


def get_statistics(name: str, order: str, limit: int) -> GetStatisticsRequest:
    return GetStatisticsRequest(function_name=name, order=_order(order), max_items=limit)


def watch_statistics(name: str, order: str, limit: int, interval: float) -> WatchStatisticsRequest:
    return WatchStatisticsRequest(
        function_name=name, order=_order(order), max_items=limit, interval_ms=round(interval * 1000)
    )


def _order(text: str) -> StatisticsOrder:
    try:
        return StatisticsOrder(text)
    except ValueError:
        known = ", ".join(order.value for order in StatisticsOrder)
        raise errors.InvalidParameterValue(f"Order: {text} is not one of {known}.") from None
